"""The SQL of the guide of `analytics`, against what the Worker writes."""

import json
import re
import sqlite3
from collections.abc import Callable
from itertools import count, takewhile
from pathlib import Path

import pytest

from conftest import link_toolchain, run_tests
from projects import config, edit, readme, replace
from test_readme import blocks_of

Render = Callable[..., Path]

EVENT = {"userId": "ada", "event": "purchase", "value": 12.5}
#: How a list of a data point is called, and the columns that it fills.
LISTS = {"indexes": "index", "blobs": "blob", "doubles": "double"}
#: Sends `EVENT` and looks at what reaches the binding.
PROBE = """
import { env, exports } from "cloudflare:workers";
import { expect, it, vi } from "vitest";

it("writes what the SQL reads", async () => {
	const write = vi.spyOn(env.USER_EVENTS, "writeDataPoint");
	await exports.default.fetch(
		new Request("https://example.com/events", {
			method: "POST",
			headers: { "Content-Type": "application/json" },
			body: JSON.stringify(%s),
		}),
	);
	expect(write.mock.calls).toEqual([[%s]]);
});
"""


def queries(project: Path) -> list[str]:
    """Return the SQL of a project's README, block by block."""
    blocks = blocks_of(readme(project))
    return [block.code for block in blocks if block.kind == "sql"]


def columns(project: Path) -> dict[str, str]:
    """Return what the SQL of a project's README calls the numbered columns.

    Raises:
        AssertionError: When it leaves one without a name, or gives it two.
    """
    sql = "\n".join(queries(project))
    named = set(re.findall(r"\b((?:index|blob|double)\d+) AS (\w+)", sql))
    used = set(re.findall(r"\b(?:index|blob|double)\d+\b", sql))
    assert sorted(used) == sorted(column for column, _ in named)
    return dict(named)


def data_point(named: dict[str, str]) -> dict[str, list]:
    """Return the data point in which these columns hold the fields of `EVENT`."""
    return {
        key: [
            EVENT[named[column]]
            for column in takewhile(
                named.__contains__, (f"{prefix}{n}" for n in count(1))
            )
        ]
        for key, prefix in LISTS.items()
    }


def test_the_sql_of_the_guide_names_the_columns_as_the_worker_writes_them(
    render: Render,
) -> None:
    project = link_toolchain(render(["analytics"]))
    named = columns(project)
    expected = data_point(named)

    probe = PROBE % (json.dumps(EVENT), json.dumps(expected))
    (project / "test/probe.test.ts").write_text(probe)

    assert set(named.values()) == set(EVENT)
    run_tests(project, "test/probe.test.ts")


@pytest.mark.parametrize("name", ["app", "my-first-worker"])
def test_the_sql_of_the_guide_reads_the_dataset_of_the_binding(
    render: Render, name: str
) -> None:
    project = render(["analytics"], project_name=name)
    wrangler = config(project)
    assert wrangler["analytics_engine_datasets"] == [
        {"binding": "USER_EVENTS", "dataset": f"{name.replace('-', '_')}_events"}
    ]
    sources = re.findall(r"^FROM (\w+)$", "\n".join(queries(project)), re.MULTILINE)
    assert len(sources) == len(queries(project))
    assert set(sources) == {wrangler["analytics_engine_datasets"][0]["dataset"]}


def test_the_sums_of_the_guide_count_what_sampling_left_out(render: Render) -> None:
    (_, sums) = queries(render(["analytics"], project_name="app"))
    database = sqlite3.connect(":memory:")
    database.execute(
        "CREATE TABLE app_events (timestamp, index1, blob1, double1, _sample_interval)"
    )
    database.executemany(
        "INSERT INTO app_events VALUES (1, 'ada', ?, ?, ?)",
        [("purchase", 10.0, 1), ("purchase", 20.0, 9), ("signup", 1.0, 4)],
    )

    # SQLite has no intervals.
    rows = database.execute(re.sub(r"NOW\(\) - INTERVAL '\d+' DAY", "0", sums))

    assert [column[0] for column in rows.description] == [
        "event",
        "times",
        "total",
        "average",
    ]
    assert rows.fetchall() == [("purchase", 10, 190.0, 19.0), ("signup", 4, 4.0, 1.0)]


#: One line of the tests of `POST /events`, and the same with a session's token.
HEADERS = 'const HEADERS = { "Content-Type": "application/json" };'
WITH_SESSION = """
const HEADERS = {
	"Content-Type": "application/json",
	Authorization: `Bearer ${await token()}`,
};
async function token(): Promise<string> {
	const response = await exports.default.fetch(
		new Request("https://example.com/auth/sessions", {
			method: "POST",
			headers: {
				"Content-Type": "application/json",
				Authorization: `Bearer ${env.API_TOKEN}`,
			},
			body: JSON.stringify({ userId: "ada" }),
		}),
	);
	return (await response.json<{ token: string }>()).token;
}
"""


def test_a_lock_in_front_of_events_costs_its_tests_one_line(render: Render) -> None:
    project = link_toolchain(render(["auth", "analytics"]))
    code, test = project / "src/index.ts", project / "test/analytics.test.ts"
    replace(code, 'app.post("/events", async', 'app.post("/events", sessionOnly, async')
    with pytest.raises(AssertionError, match="expected 401"):
        run_tests(project, "test/analytics.test.ts")
    replace(test, HEADERS, WITH_SESSION)
    run_tests(project, "test/analytics.test.ts")


#: A route of the user's own that records what its path says.
SEEN = """
app.get("/api/seen/:userId", (c) => {
	analyticsWrite(c.env, { userId: c.req.param("userId"), event: "seen" });
	return c.body(null, 204);
});
"""
SEEN_PROBE = """
import { env, exports } from "cloudflare:workers";
import { expect, it, vi } from "vitest";

it("writes what a column can hold, and nothing else", async () => {
	const write = vi.spyOn(env.USER_EVENTS, "writeDataPoint");
	const see = (userId: string) =>
		exports.default.fetch(`https://example.com/api/seen/${userId}`);
	const refused = await see("a".repeat(97));
	expect(refused.status).toBe(400);
	expect(await refused.json()).toMatchObject({
		error: { issues: [{ path: "userId" }] },
	});
	expect(write).not.toHaveBeenCalled();
	expect((await see("a".repeat(96))).status).toBe(204);
	expect(write.mock.calls).toEqual([
		[{ indexes: ["a".repeat(96)], blobs: ["seen"], doubles: [1] }],
	]);
});
"""


def test_code_of_ones_own_writes_only_what_a_column_can_hold(render: Render) -> None:
    project = link_toolchain(render(["analytics"]))
    edit(project, "src/index.ts", "// Your code", SEEN)
    (project / "test/probe.test.ts").write_text(SEEN_PROBE)
    run_tests(project, "test/probe.test.ts")
