"""Queues in `wrangler dev`: nothing is lost on the way to an upstream that fails."""

import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from werkzeug import Request, Response

from dev_server import DevServer, free_ports, serve
from internet import answering
from projects import config, readme, replace
from toolchain import link_toolchain, node, write_types

Render = Callable[..., Path]

full = pytest.mark.full

KEY = "the-key-of-the-upstream"
RETRIES = 5

#: Two ways not to answer with a status.
DROP, HANG = "drop", "hang"


@dataclass
class Post:
    """One POST to the upstream.

    Attributes:
        headers: Its headers, by lower-case name.
        text: Its body.
        time: When it came, in seconds.
        answer: The status it got, `DROP` or `HANG`.
    """

    headers: dict[str, str]
    text: str
    time: float = field(default_factory=time.monotonic)
    answer: int | str = 200

    @property
    def batch(self) -> dict:
        """The body."""
        return json.loads(self.text)

    @property
    def ids(self) -> list[str]:
        """The ids of the requests in it."""
        return [request["requestId"] for request in self.batch["requests"]]


@dataclass
class Upstream:
    """A stand-in for the upstream API.

    Attributes:
        answer: Chooses what a post gets: a status, `DROP` or `HANG`.
        posts: The POSTs that came, in order.
        others: The methods of requests that were no POST.
    """

    answer: Callable[[Post], int | str] = lambda post: 200
    posts: list[Post] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def taken(self) -> list[str]:
        """The ids of the requests that were answered with 200."""
        return [i for post in self.posts if post.answer == 200 for i in post.ids]

    @contextmanager
    def listen(self, port: int) -> Iterator[None]:
        """Listen on a port of 127.0.0.1 until the block ends."""
        with answering(self.take, port):
            yield

    def take(self, request: Request) -> Response:
        """Answer a request as `answer` wants it."""
        if request.method != "POST":
            self.others.append(request.method)
            return Response()
        headers = {key.lower(): value for key, value in request.headers.items()}
        post = Post(headers, request.get_data(as_text=True))
        post.answer = self.answer(post)
        self.posts.append(post)
        if post.answer == HANG:
            time.sleep(60)
        if post.answer == DROP:
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        status = post.answer if isinstance(post.answer, int) else 200
        return Response(status=status, headers={"Location": "/elsewhere"})


def change(path: Path, changes: dict[str, str]) -> None:
    """Replace each of some texts that occur once in a file."""
    for old, new in changes.items():
        replace(path, old, new)


@pytest.fixture
def prepare(render: Render) -> Callable[[int], Path]:
    """Return a function that makes a project whose upstream is at a port.

    Batches and retries wait for one second.
    """

    def prepare(port: int) -> Path:
        project = link_toolchain(render(["queues"]))
        change(
            project / "wrangler.jsonc",
            {
                '"max_batch_timeout": 5': '"max_batch_timeout": 1',
                '"retry_delay": 300': '"retry_delay": 1',
                '"UPSTREAM_API_URL": ""': f'"UPSTREAM_API_URL": "http://127.0.0.1:{port}/in"',
            },
        )
        name = "UPSTREAM_API_KEY="
        change(project / ".dev.vars", {f"{name}\n": f"{name}{KEY}\n"})
        return project

    return prepare


def post(server: DevServer, bodies: list[object]) -> list[str]:
    """Post requests and return their ids."""
    headers = {**server.operator, "Cookie": "auth_token=a-cookie", "User-Agent": "test"}
    responses = [
        server.http.post("/requests", json=body, headers=headers) for body in bodies
    ]
    assert {response.status_code for response in responses} == {202}
    return [response.json()["requestId"] for response in responses]


def dead_letters(server: DevServer, queue: str) -> int:
    """Count the messages that moved to a dead-letter queue, by the log."""
    return server.log.read_text().count(f'dead letter queue "my-worker-{queue}"')


def test_the_config_loses_nothing(render: Render) -> None:
    project = render(["queues"], project_name="shop")
    queues = config(project)["queues"]
    assert queues == {
        "producers": [{"binding": "REQUEST_QUEUE", "queue": "shop-requests"}],
        "consumers": [
            {
                "queue": "shop-requests",
                "max_batch_size": 10,
                "max_batch_timeout": 5,
                "max_retries": RETRIES,
                "retry_delay": 300,
                "dead_letter_queue": "shop-requests-dlq",
            }
        ],
    }


@pytest.mark.parametrize(
    ("count", "faults"),
    [
        (20, [500, DROP, 302]),
        pytest.param(200, [500, 429, DROP, HANG, 302, 408, 503], marks=full),
    ],
)
def test_no_message_is_lost_when_the_upstream_fails_in_every_way(
    prepare: Callable[[int], Path], count: int, faults: list[int | str]
) -> None:
    (port,) = free_ports(1)
    answers = iter(faults)
    upstream = Upstream(answer=lambda post: next(answers, 200))

    with serve(prepare(port)) as server:
        refused = post(server, [{"number": number} for number in range(count)])
        log = server.log
        server.wait_until(lambda: "Batch not delivered" in log.read_text(), 10)
        with upstream.listen(port):
            others = post(server, [{"number": number} for number in range(count)])
            server.wait_until(lambda: len(upstream.taken) >= 2 * count, 120)
            time.sleep(2)
            dead = dead_letters(server, "requests-dlq")

    assert Counter(upstream.taken) == Counter(refused + others)
    assert dead == 0
    assert {post.headers["authorization"] for post in upstream.posts} == {
        f"Bearer {KEY}"
    }
    assert not any(
        "a-cookie" in f"{post.headers}{post.text}" for post in upstream.posts
    )
    assert upstream.others == [], "a redirect was followed"
    failed = [post for post in upstream.posts if post.answer != 200]
    assert [post.answer for post in failed] == faults
    for fault in failed:
        for request_id in fault.ids:
            again = next(
                post.time
                for post in upstream.posts
                if post.time > fault.time and request_id in post.ids
            )
            assert again - fault.time > 1


@full
def test_a_bad_message_takes_no_other_along_and_can_be_replayed(
    prepare: Callable[[int], Path],
) -> None:
    (port,) = free_ports(1)
    upstream = Upstream(answer=lambda post: 422 if '"bad"' in post.text else 200)
    project = prepare(port)
    entry = '"my-worker-requests-dlq": deliverRequests,'
    assert f"`{entry}`" in readme(project)
    change(
        project / "wrangler.jsonc",
        {
            "// Your consumers\n": "// Your consumers\n"
            '{ "queue": "my-worker-requests-dlq", "retry_delay": 1, "max_retries": 1,\n'
            '"max_batch_timeout": 1, "dead_letter_queue": "my-worker-rejected" },\n',
        },
    )
    change(
        project / "src/index.ts",
        {"\t\t\t// Your queues\n": f"\t// Your queues\n\t{entry}\n"},
    )

    with upstream.listen(port), serve(project) as server:
        good = post(server, ["good"] * 5)
        (bad,) = post(server, ["bad"])
        good += post(server, ["good"] * 3)
        server.wait_until(lambda: dead_letters(server, "rejected") == 1, 60)
        dead = dead_letters(server, "requests-dlq")

    # First here, and then in the replay.
    assert dead == 1
    assert Counter(upstream.taken) == Counter(good)
    first, *others = upstream.posts
    assert (first.answer, first.batch["batchSize"]) == (422, 9)
    assert {post.batch["batchSize"] for post in others} == {1}
    assert [post.ids for post in others[:9]] == [[i] for i in first.ids]
    # Alone in its batch, it is posted once each time.
    assert [post.ids for post in others[9:]] == [[bad]] * (RETRIES + 2)


@full
def test_own_code_queues_requests_and_consumes_a_queue_of_its_own(
    prepare: Callable[[int], Path],
) -> None:
    (port,), upstream = free_ports(1), Upstream()
    project = prepare(port)
    change(
        project / "wrangler.jsonc",
        {
            "// Your producers\n": "// Your producers\n"
            '{ "binding": "MAIL", "queue": "all-mail" },\n',
            "// Your consumers\n": "// Your consumers\n"
            '{ "queue": "all-mail", "max_batch_timeout": 0 },\n',
        },
    )
    change(
        project / "src/index.ts",
        {
            "// Your code": """// Your code

app.post("/mail", async (c) => {
	await c.env.MAIL.send("to ada");
	return c.body(null, 204);
});

async function consumeMail(
	batch: MessageBatch<unknown>,
	env: Env,
): Promise<void> {
	for (const message of batch.messages) {
		await queueRequest(env, { body: { mail: message.body } });
		message.ack();
	}
}
""",
            "\t\t\t// Your queues\n": '\t// Your queues\n\t"all-mail": consumeMail,\n',
        },
    )
    write_types(project)
    node(project, "tsc")

    with upstream.listen(port), serve(project) as server:
        server.http.post("/mail")
        server.wait_until(lambda: upstream.posts != [], 20)
        log = server.log.read_text()

    (only,) = upstream.posts
    (request,) = only.batch["requests"]
    assert request == {
        "requestId": request["requestId"],
        "timestamp": request["timestamp"],
        "method": "POST",
        "path": "/requests",
        "headers": {"content-type": "application/json"},
        "body": {"mail": "to ada"},
    }
    assert '"level":"error"' not in log
