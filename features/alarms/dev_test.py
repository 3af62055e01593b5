"""Reminders under `wrangler dev`, whose alarms really wait and survive its end."""

from collections.abc import Callable
from pathlib import Path

from dev_server import DevServer, serve
from toolchain import link_toolchain


def wait_until_fired(server: DevServer, times: int) -> int:
    """Wait until the reminder has fired so many times; return how many by then."""

    def fired() -> int:
        return server.http.get("/reminders/ada").json()["fired"]

    server.wait_until(lambda: fired() >= times)
    return fired()


def test_a_reminder_fires_by_itself_again_and_again_also_after_a_restart(
    render: Callable[..., Path],
) -> None:
    project = link_toolchain(render(["alarms"]))
    with serve(project) as server:
        every_second = {"json": {"everySeconds": 1}, "headers": server.operator}
        server.http.put("/reminders/ada", **every_second)
        before = wait_until_fired(server, 2)
        server.stop()
    with serve(project) as server:
        assert server.http.get("/reminders/ada").json()["everySeconds"] == 1
        wait_until_fired(server, before + 2)
        server.http.delete("/reminders/ada", headers=server.operator)
        assert server.http.get("/reminders/ada").status_code == 404
