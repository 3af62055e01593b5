"""Agents under `wrangler dev`, with a stand-in for the API of a model."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import count
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, expect, sync_playwright
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

import workbench
from conftest import (
    FEATURES,
    assert_clean,
    assert_tests_pass,
    link_toolchain,
    node,
)
from dev_server import DevServer, serve
from internet import MODEL_KEY, Model
from projects import edit


@dataclass
class Page:
    """A client of an agent.

    Attributes:
        socket: Its connection.
        ids: The ids of its next calls.
    """

    socket: ClientConnection
    ids: Iterator[int] = field(default_factory=count)

    def wait_for(self, kind: str, **fields: object) -> dict:
        """Return the next frame of a kind that has these fields."""
        while True:
            frame = json.loads(self.socket.recv(20))
            if frame["type"] == kind and fields.items() <= frame.items():
                return frame

    def send(self, frame: dict) -> None:
        """Send a frame."""
        self.socket.send(json.dumps(frame))

    def start(self, method: str, *arguments: object) -> str:
        """Call a method; return the id that the frames of its answer have."""
        call = str(next(self.ids))
        self.send({"type": "rpc", "id": call, "method": method, "args": arguments})
        return call

    def call(self, method: str, *arguments: object) -> object:
        """Call a method and return its result."""
        frame = self.wait_for("rpc", id=self.start(method, *arguments), done=True)
        assert frame["success"], frame
        return frame.get("result")


def path(name: str) -> str:
    """Return the path of an agent."""
    return f"/agents/ai-agent/{name}"


@contextmanager
def open_page(server: DevServer, name: str) -> Iterator[Page]:
    """Connect to an agent with a ticket, until the block ends."""
    with join(server, name, new_ticket(server, name)) as socket:
        page = Page(socket)
        page.wait_for("messages")
        yield page


def new_ticket(server: DevServer, name: str) -> str:
    """Return a new ticket for an agent."""
    response = server.http.post(f"{path(name)}/ticket", headers=server.operator)
    assert response.status_code == 201
    return response.json()["ticket"]


def join(
    server: DevServer, name: str, ticket: str, **options: object
) -> ClientConnection:
    """Open a WebSocket to an agent; `options` are those of `connect`."""
    address = f"ws://127.0.0.1:{server.port}{path(name)}?ticket={ticket}"
    return connect(address, proxy=None, **options)


def refusal(server: DevServer, name: str, ticket: str, **options: object) -> int:
    """Return the status with which a WebSocket is refused."""
    with (
        pytest.raises(InvalidStatus) as refused,
        join(server, name, ticket, **options),
    ):
        pass
    return refused.value.response.status_code


def messages(server: DevServer, name: str) -> list[tuple[str, str]]:
    """Return who has said what in a conversation."""
    response = server.http.get(path(name), headers=server.operator)
    return [(one["role"], one["text"]) for one in response.json()["messages"]]


def wait_for_messages(server: DevServer, name: str, number: int) -> list:
    """Wait until a conversation has so many messages and return them.

    Raises:
        AssertionError: When that takes more than half a minute.
    """
    server.wait_until(lambda: len(messages(server, name)) >= number)
    return messages(server, name)


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    """A model that runs."""
    with Model() as model:
        yield model


@pytest.fixture(scope="module")
def new_project(render: Callable[..., Path], model: Model) -> Callable[..., Path]:
    """Return a function that makes a project of some features and that model."""

    def new_project(*features: str) -> Path:
        project = link_toolchain(render([*features], ai_provider="openai"))
        return model.connect(project)

    return new_project


@pytest.fixture(scope="module")
def server(new_project: Callable[..., Path]) -> Iterator[DevServer]:
    """A server of agents, with rooms that they must keep apart from."""
    with serve(new_project("websockets", "agents")) as server:
        yield server


# --- Streaming ------------------------------------------------------------------


def test_a_reply_over_http_arrives_piece_by_piece(
    server: DevServer, model: Model
) -> None:
    # The model says a piece only after the one before has arrived.
    model.pieces.put("Hel")
    with server.http.stream(
        "POST", path("http"), json={"message": "Hi"}, headers=server.operator
    ) as response:
        assert response.status_code == 200
        events = (line for line in response.iter_lines() if line)
        assert next(events) == 'data: {"text":"Hel"}'
        model.pieces.put("lo!")
        assert next(events) == 'data: {"text":"lo!"}'
        model.pieces.put(None)
        assert list(events) == ["data: [DONE]"]
    assert messages(server, "http") == [("user", "Hi"), ("assistant", "Hello!")]


def test_a_reply_over_a_websocket_arrives_piece_by_piece(
    server: DevServer, model: Model
) -> None:
    with open_page(server, "socket") as page:
        call = page.start("chat", "Hi")
        for piece in ("Hel", "lo", "!"):
            model.pieces.put(piece)
            assert page.wait_for("rpc", id=call)["result"] == piece
        model.pieces.put(None)
        assert page.wait_for("rpc", id=call)["done"] is True


def test_plain_text_over_a_websocket_is_answered_piece_by_piece(
    server: DevServer, model: Model
) -> None:
    with open_page(server, "plain") as page:
        page.socket.send("Hi")
        for piece in ("Hel", "lo", "!"):
            model.pieces.put(piece)
            assert page.wait_for("piece")["text"] == piece
        model.pieces.put(None)
        page.wait_for("done")


def wait_until_closed(model: Model) -> None:
    """Let the model go on until nobody listens, and forget what it still says."""
    deadline = time.monotonic() + 20
    while not model.closed.wait(0.2):
        assert time.monotonic() < deadline
        model.pieces.put("lo")
    while not model.pieces.empty():
        model.pieces.get()


def test_a_conversation_that_outgrows_the_model_goes_on(
    server: DevServer, model: Model
) -> None:
    model.window = 24_000
    try:
        with open_page(server, "long") as page:
            for _ in range(3):
                model.say("y" * 7000)
                page.call("chat", "x" * 7000)
            model.say("Hello!")
            page.call("chat", "Hi")
            model.say("Yes.")
            page.call("chat", "x" * 8000)
    finally:
        model.window = 1_000_000
    assert len(messages(server, "long")) == 10


def test_a_message_that_the_model_never_takes_bricks_nothing(
    server: DevServer, model: Model
) -> None:
    model.window = 1000
    try:
        with open_page(server, "brick") as page:
            model.say("Hello!")
            page.call("chat", "Hi")
            refused = page.wait_for("rpc", id=page.start("chat", "x" * 2000))
            model.say("Yes.")
            page.call("chat", "And now?")
    finally:
        model.window = 1_000_000
    assert refused["error"].startswith("model_failed: ")
    said = [("user", "Hi"), ("assistant", "Hello!")]
    assert messages(server, "brick") == [
        *said,
        ("user", "And now?"),
        ("assistant", "Yes."),
    ]


def test_a_conversation_that_is_cleared_keeps_no_turn_that_still_runs(
    server: DevServer, model: Model
) -> None:
    with open_page(server, "cleared") as page:
        call = page.start("chat", "Hi")
        model.pieces.put("Hel")
        page.wait_for("rpc", id=call)
        response = server.http.delete(path("cleared"), headers=server.operator)
        assert response.status_code == 204
        page.wait_for("cleared")
        model.say("lo!")
        page.wait_for("rpc", id=call, done=True)
        assert messages(server, "cleared") == []

        model.say("Yes.")
        page.call("chat", "And now?")
    assert messages(server, "cleared") == [("user", "And now?"), ("assistant", "Yes.")]


def test_a_client_that_goes_away_while_it_waits_gives_up_its_turn(
    server: DevServer, model: Model
) -> None:
    model.closed.clear()
    with open_page(server, "places") as page:
        call = page.start("chat", "Hi")
        model.pieces.put("Hel")
        page.wait_for("rpc", id=call)
        request = {"json": {"message": "I?"}, "headers": server.operator}
        with pytest.raises(httpx.ReadTimeout):
            server.http.post(path("places"), **request, timeout=0.5)
        model.say("lo!")
        page.wait_for("rpc", id=call, done=True)
        wait_until_closed(model)
        model.say("Yes.")
        page.call("chat", "And I?")
    said = [text for _, text in messages(server, "places")]
    assert said == ["Hi", "Hello!", "And I?", "Yes."]


def test_a_client_that_reads_nothing_holds_up_nobody(
    server: DevServer, model: Model
) -> None:
    model.say(*["x" * 60_000] * 25)
    model.say("Hello!")
    with server.http.stream(
        "POST", path("slow"), json={"message": "Hi"}, headers=server.operator
    ):
        other = {"json": {"message": "And I?"}, "headers": server.operator}
        assert "Hello!" in server.http.post(path("slow"), **other).text


def test_a_client_that_goes_away_ends_the_work_of_the_model(
    server: DevServer, model: Model
) -> None:
    model.closed.clear()
    model.pieces.put("Hel")
    with server.http.stream(
        "POST", path("away"), json={"message": "Hi"}, headers=server.operator
    ) as response:
        next(response.iter_lines())
    wait_until_closed(model)
    assert messages(server, "away") == []


# --- Pages ----------------------------------------------------------------------


def test_two_pages_see_one_conversation_and_one_title(
    server: DevServer, model: Model
) -> None:
    with open_page(server, "pages") as ada, open_page(server, "pages") as bob:
        model.say("Hello!")
        ada.call("chat", "Hi")
        texts = [one["text"] for one in bob.wait_for("messages")["messages"]]
        assert texts == ["Hi", "Hello!"]

        response = server.http.get(path("pages"), headers=server.operator)
        state = response.json()["state"]
        ada.send({"type": "cf_agent_state", "state": {**state, "title": "Plans"}})
        while bob.wait_for("cf_agent_state")["state"]["title"] != "Plans":
            pass
        ada.send({"type": "cf_agent_state", "state": {**state, "title": 7}})
        ada.wait_for("cf_agent_state_error")
        bob.call("setTitle", "Other plans")
        while ada.wait_for("cf_agent_state")["state"]["title"] != "Other plans":
            pass


def test_a_conversation_and_its_reminders_survive_a_restart(
    new_project: Callable[..., Path], model: Model
) -> None:
    project = new_project("agents")
    with serve(project) as server:
        model.say("Hello!")
        with open_page(server, "ada") as page:
            page.call("chat", "Hi")
            for seconds in (1, 6):
                when = {"delaySeconds": seconds}
                page.call("addReminder", {"text": f"after {seconds}", "when": when})
            page.wait_for("messages")
        before = messages(server, "ada")
        server.stop()
    with serve(project) as server:
        model.say("Yes.")
        with open_page(server, "ada") as page:
            page.call("chat", "Do you remember?")
        after = wait_for_messages(server, "ada", 6)

    said = [("user", "Hi"), ("assistant", "Hello!")]
    assert before == [*said, ("reminder", "after 1")]
    assert ("reminder", "after 6") in after
    asked = [message["content"] for message in model.requests[-1]["messages"]]
    assert asked[1:] == ["Hi", "Hello!", "Do you remember?"]


# --- Routes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        "/agents/chat-room/lobby",
        "/agents/CHAT_ROOM/lobby",
        "/agents/ai-agent/../chat-room/lobby",
        "/agents/ai-agent/%2e%2e/chat-room/lobby",
        "/agents/ai-agent/..%2fchat-room%2flobby",
        "/agents/ai-agent%2f..%2fchat-room/lobby",
        "//agents/chat-room/lobby",
        "/agents//chat-room/lobby",
        "/agents/ai-agent/ada/sub/chat-room/lobby",
        "/agents/chat-room/lobby/ticket",
    ],
)
@pytest.mark.parametrize("upgrade", [{}, {"Upgrade": "websocket"}])
def test_no_other_object_is_reached_through_the_route_of_the_agents(
    server: DevServer, other: str, upgrade: dict[str, str]
) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    with closing(connection):
        connection.request("GET", other, headers={**server.operator, **upgrade})
        response = connection.getresponse()
        assert response.status in (400, 404)
        code = json.loads(response.read())["error"]["code"]
    assert code in ("not_found", "invalid_name")


# --- Agents of the user's own ------------------------------------------------------

#: What a user writes below `// Your code`.
OWN_AGENT = """
/** Answers customers, and knows their orders. */
export class SupportAgent extends AiAgent {
	protected override instructions(): string {
		return "You help the customers of a shop.";
	}

	protected override tools(): Record<string, ModelTool> {
		return {
			orderStatus: modelTool({
				description: "Tells the status of an order.",
				input: z.strictObject({ order: z.string() }),
				run: ({ order }) => {
					this.addNote(`Looked up ${order}.`);
					return "sent";
				},
			}),
			callBack: modelTool({
				description: "Reminds the customer of a call.",
				input: z.strictObject({ date: z.string() }),
				run: ({ date }) => this.addReminder({ text: "Call", when: { date } }),
			}),
		};
	}

	@callable()
	@agentsGuarded
	async greet(name: string): Promise<string> {
		return `Hello ${agentArguments(z.string(), name)}`;
	}
}

app.route(
	"/",
	makeAgentRoutes("support-agent", (env) => env.Support),
);
"""

#: What the user's tests say of it.
OWN_TEST = """
import { env, exports } from "cloudflare:workers";
import { afterEach, expect, it, vi } from "vitest";
import { answerText, answerTool, requests } from "./provider";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const PATH = "/agents/support-agent/ada";

afterEach(() => vi.restoreAllMocks());

function request(path: string, init: RequestInit = {}): Promise<Response> {
	const headers = { ...OPERATOR, ...init.headers };
	const url = `https://example.com${path}`;
	return exports.default.fetch(new Request(url, { ...init, headers }));
}

function say(message: string, path = PATH): Promise<Response> {
	const headers = { "Content-Type": "application/json" };
	const body = JSON.stringify({ message });
	return request(path, { method: "POST", headers, body });
}

async function texts(path = PATH): Promise<string[]> {
	const response = await request(path);
	const { messages } = await response.json<{ messages: { text: string }[] }>();
	return messages.map(({ text }) => text);
}

async function open(ticket: string, path = PATH): Promise<Response> {
	const init = { headers: { Upgrade: "websocket" } };
	const url = `https://example.com${path}?ticket=${ticket}`;
	return exports.default.fetch(new Request(url, init));
}

it("chats with its own instructions and tools", async () => {
	answerTool("orderStatus", { order: "7" }, "It was sent.");
	expect(await (await say("Where is 7?")).text()).toContain("It was sent.");
	expect(await texts()).toEqual([
		"Looked up 7.",
		"Where is 7?",
		"It was sent.",
	]);
	const [first, second] = requests().map((sent) => JSON.stringify(sent));
	expect(first).toContain("You help the customers of a shop.");
	expect(first).toContain("Tells the status of an order.");
	expect(second).toContain('"sent"');
	expect(await texts("/agents/ai-agent/ada")).toEqual([]);
	answerText("Yes.");
	await (await say("Hi", "/agents/ai-agent/ada")).text();
	expect(JSON.stringify(requests())).not.toContain("orderStatus");
});

it("tells the model what its tool needs, where a method refuses that", async () => {
	const log = vi.spyOn(console, "error");
	answerTool("callBack", { date: "tomorrow" }, "On which day?");
	expect(await (await say("Call me")).text()).toContain("On which day?");
	const [, second] = requests().map((sent) => JSON.stringify(sent));
	expect(second).toContain("when.date");
	expect(log).not.toHaveBeenCalled();
});

it("is not asked again when it has used a tool", async () => {
	answerText("Yes.");
	await (await say("Hi")).text();
	answerTool("orderStatus", { order: "8" }, "It was sent.");
	const run = vi.mocked(env.AI.run);
	const answer = run.getMockImplementation();
	let asked = 0;
	run.mockImplementation(((...call: Parameters<typeof env.AI.run>) => {
		asked += 1;
		return asked === 1
			? answer?.(...call)
			: Promise.reject(new Error("5021: No"));
	}) as typeof env.AI.run);
	expect((await say("Where is 8?")).status).toBe(502);
	expect(asked).toBe(2);
});

it("has tickets of its own, and calls", async () => {
	const init = { method: "POST" };
	const made = await request(`${PATH}/ticket`, init);
	const { ticket } = await made.json<{ ticket: string }>();
	expect((await open(ticket, "/agents/ai-agent/ada")).status).toBe(401);
	const { status, webSocket } = await open(ticket);
	expect(status).toBe(101);
	expect((await open(ticket)).status).toBe(401);

	const frames: unknown[] = [];
	webSocket?.addEventListener("message", ({ data }) => {
		frames.push(JSON.parse(String(data)));
	});
	webSocket?.accept();
	const call = { type: "rpc", id: "1", method: "greet", args: ["Bob"] };
	webSocket?.send(JSON.stringify(call));
	await vi.waitFor(() => {
		const done = { type: "rpc", success: true, result: "Hello Bob" };
		expect(frames).toContainEqual(expect.objectContaining(done));
	});
	expect(frames).toContainEqual(
		expect.objectContaining({ agent: "support-agent", name: "ada" }),
	);
});

it("is cleared, and locked", async () => {
	answerText("Yes.");
	await (await say("Hi")).text();
	expect((await request(PATH, { method: "DELETE" })).status).toBe(204);
	expect(await texts()).toEqual([]);
	const url = `https://example.com${PATH}`;
	const stranger = await exports.default.fetch(new Request(url));
	expect(stranger.status).toBe(401);
});
"""


#: What it takes when it stands in a file of its own, by the layout.
OWN_FILE = {
    "single-file": """
import { callable } from "agents";
import * as z from "zod";
import {
	AiAgent,
	agentArguments,
	agentsGuarded,
	type ModelTool,
	modelTool,
} from "./index";
""",
    "modules": """
import { callable } from "agents";
import * as z from "zod";
import { AiAgent, agentArguments, agentsGuarded } from "./agents";
import { type ModelTool, modelTool } from "./model";
""",
}


def test_a_second_class_of_agents_needs_no_copied_line(
    render: Callable[..., Path],
) -> None:
    alone, everything = (
        link_toolchain(render(features, project_name=f"agents-of-{len(features)}"))
        for features in (["agents"], FEATURES)
    )
    for project in (alone, everything):
        edit(project, "src/index.ts", "// Your code", OWN_AGENT.removesuffix("\n"))
        add_own_agent(project)
    in_files = [
        link_toolchain(render(["agents"], layout=layout, project_name=layout))
        for layout in OWN_FILE
    ]
    for project, layout in zip(in_files, OWN_FILE, strict=True):
        add_file_of_own_agent(project, layout)
        add_own_agent(project)

    projects = [alone, everything, *in_files]
    assert_clean(*projects)
    assert_tests_pass(*(project / "test/support.test.ts" for project in projects))


def add_file_of_own_agent(project: Path, layout: str) -> None:
    """Give a project a file with a class of agents of the user's own."""
    code, _, mount = OWN_AGENT.partition("\napp.route(")
    own_class = "export class SupportAgent extends AiAgent"
    assert own_class in code
    join = 'export { SupportAgent } from "./support";'
    bring = "import { makeAgentRoutes }" + ' from "./agents";'
    if layout == "single-file":
        # The base class is not there yet while the file loads.
        factory = "export function supportAgent() {\nreturn class extends AiAgent"
        code = code.replace(own_class, factory) + "}\n"
        join = "export class SupportAgent extends supportAgent() {}"
        bring = 'import { supportAgent } from "./support";'
    (project / "src/support.ts").write_text(OWN_FILE[layout].lstrip() + code)
    edit(project, "src/index.ts", "// Your imports", bring)
    routes = f"\n{join}\n\napp.route({mount.rstrip()}"
    edit(project, "src/index.ts", "// Your code", routes)
    node(project, "biome", "format", "--write", "src/support.ts")


def add_own_agent(project: Path) -> None:
    """Give a project with the code of such a class its config and its tests."""
    entry = '\t\t\t{ "name": "Support", "class_name": "SupportAgent" },'
    edit(project, "wrangler.jsonc", "\t\t\t// Your durable_objects", entry)
    migration = '\t\t{ "tag": "user-1", "new_sqlite_classes": ["SupportAgent"] },'
    place = '\t\t// Your migrations after v1 (tags that start with "user-")'
    edit(project, "wrangler.jsonc", place, migration)
    (project / "test/support.test.ts").write_text(OWN_TEST.lstrip())


# --- Tickets --------------------------------------------------------------------


def test_a_ticket_opens_one_websocket_to_one_agent(server: DevServer) -> None:
    ticket = new_ticket(server, "ada")
    assert refusal(server, "bob", ticket) == 401
    foreign = "https://other.example"
    assert refusal(server, "ada", ticket, origin=foreign) == 403
    with join(server, "ada", ticket, origin=server.url):
        assert refusal(server, "ada", ticket) == 401
    assert refusal(server, "ada", "") == 401
    assert server.http.get(f"{path('ada')}?ticket={ticket}").status_code == 401


def test_no_ticket_token_or_message_is_in_the_log(
    server: DevServer, model: Model
) -> None:
    ticket = new_ticket(server, "log")
    model.say("the words of the model")
    with join(server, "log", ticket) as socket:
        socket.send("the words of the user")
        while json.loads(socket.recv(20))["type"] != "done":
            pass
    refusal(server, "log", ticket)
    log = server.log.read_text()
    for secret in (ticket, server.token, MODEL_KEY, "the words of the"):
        assert secret not in log


# --- The React client ------------------------------------------------------------


@pytest.fixture(scope="module")
def site(new_project: Callable[..., Path]) -> Iterator[DevServer]:
    """A server whose demo shows the agents."""
    with serve(new_project("agents", "assets")) as server:
        yield server


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A Chromium."""
    program = workbench.chromium_program()
    assert program is not None, "`python3 test.py` installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"]
        )
        yield browser
        browser.close()


def open_panel(browser: Browser, server: DevServer, name: str) -> Locator:
    """Open the demo in a browser of its own, with an agent; return its panel."""
    page = browser.new_page()
    page.goto(f"{server.url}/demo/")
    page.get_by_label("API token").fill(server.token)
    panel = page.locator("section#agents")
    panel.get_by_label("Name").fill(name)
    panel.get_by_role("button", name="Open").click()
    expect(panel.get_by_label("Title")).to_be_enabled(timeout=20_000)
    return panel


def rename(panel: Locator, title: str) -> None:
    """Give the agent of a panel another title."""
    panel.get_by_label("Title").fill(title)
    panel.get_by_role("button", name="Rename").click()


def test_two_browsers_show_one_conversation_while_it_goes_on(
    site: DevServer, model: Model, browser: Browser
) -> None:
    ada, bob = (open_panel(browser, site, "ada") for _ in range(2))
    rename(ada, "Plans")
    expect(bob.get_by_label("Title")).to_have_value("Plans")

    ada.get_by_label("Message").fill("Hi")
    ada.get_by_role("button", name="Send").click()
    model.pieces.put("Hel")
    expect(ada.get_by_text("Hel", exact=True)).to_be_visible()
    model.say("lo!")
    for panel in (ada, bob):
        said = panel.get_by_role("log").get_by_role("paragraph")
        expect(said).to_have_text(["user Hi", "assistant Hello!"])

    ada.get_by_label("Remind me of").fill("Tea")
    ada.get_by_label("In so many seconds").fill("1")
    ada.get_by_role("button", name="Remind").click()
    for panel in (ada, bob):
        said = panel.get_by_role("log").get_by_role("paragraph")
        expect(said.last).to_have_text("reminder Tea", timeout=20_000)

    bob.get_by_role("button", name="Clear").click()
    for panel in (ada, bob):
        said = panel.get_by_role("log").get_by_role("paragraph")
        expect(said).to_have_count(0)


def test_a_browser_shows_what_an_agent_refuses_and_what_was_cut(
    site: DevServer, model: Model, browser: Browser
) -> None:
    panel = open_panel(browser, site, "refusing")
    model.window = 1
    try:
        panel.get_by_label("Message").fill("Hi")
        panel.get_by_role("button", name="Send").click()
        refused = panel.get_by_text("The model gave no usable answer.", exact=True)
        expect(refused).to_be_visible()
    finally:
        model.window = 1_000_000

    model.reason = "length"
    try:
        model.say("Hel")
        panel.get_by_role("button", name="Send").click()
        expect(panel.get_by_text("too long and was cut")).to_be_visible()
    finally:
        model.reason = "stop"


def test_a_browser_that_loses_its_connection_gets_a_new_ticket(
    site: DevServer, browser: Browser
) -> None:
    ada, bob = (open_panel(browser, site, "again") for _ in range(2))
    with (
        ada.page.expect_response(lambda sent: sent.url.endswith("/ticket")) as ticket,
        (site.project / "src/index.ts").open("a") as code,
    ):
        # A change of the code disconnects everybody, as a deploy does.
        code.write("\n")
    assert ticket.value.status == 201
    expect(ada.get_by_label("Title")).to_be_enabled(timeout=20_000)
    expect(bob.get_by_label("Title")).to_be_enabled(timeout=20_000)
    rename(ada, "Plans")
    expect(bob.get_by_label("Title")).to_have_value("Plans")


def test_a_browser_that_is_refused_a_new_ticket_says_so_and_asks_no_more(
    site: DevServer, browser: Browser
) -> None:
    panel = open_panel(browser, site, "refused")
    panel.page.get_by_label("API token").fill("wrong")
    asked = []
    panel.page.on("request", lambda request: asked.append(request.url))
    with (site.project / "src/index.ts").open("a") as code:
        code.write("\n")
    expect(panel.locator("output")).to_contain_text("Authorization", timeout=20_000)
    expect(panel.get_by_label("Title")).to_have_count(0)
    panel.page.wait_for_timeout(3000)
    assert sum(url.endswith("/ticket") for url in asked) == 1

    panel.page.get_by_label("API token").fill(site.token)
    panel.get_by_role("button", name="Open").click()
    expect(panel.get_by_label("Title")).to_be_enabled(timeout=20_000)


def test_a_wrong_token_opens_no_panel(site: DevServer, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{site.url}/demo/")
    page.get_by_label("API token").fill("wrong")
    panel = page.locator("section#agents")
    panel.get_by_role("button", name="Open").click()
    expect(panel.locator("output")).to_contain_text("Authorization")
    expect(panel.get_by_label("Title")).to_have_count(0)


def test_a_page_of_the_users_shows_the_agents_when_the_demo_is_deleted(
    new_project: Callable[..., Path], browser: Browser
) -> None:
    project = new_project("agents", "assets")
    edit(project, "src/index.ts", "// Your code", OWN_AGENT.removesuffix("\n"))
    add_own_agent(project)
    (project / "test/support.test.ts").unlink()  # It is about another provider.
    shutil.rmtree(project / "public/demo")
    index = project / "public/index.html"
    mine = (
        '<label>API token <input id="api-token"></label>'
        '<div id="agent" data-agent="SupportAgent" data-name="bob"></div>'
        '<script type="module" src="/dist/agents.js"></script>'
    )
    index.write_text(index.read_text().replace("<main>", f"<main>{mine}"))
    assert_clean(project)
    with serve(project) as server:
        assert server.http.get("/demo/").text == index.read_text()
        page = browser.new_page()
        page.goto(server.url)
        page.get_by_label("API token").fill(server.token)
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_label("Title")).to_be_enabled(timeout=20_000)
        expect(page.get_by_text("bob is open.")).to_be_visible()
        page.get_by_label("Title").fill("A case")
        page.get_by_label("Title").press("Enter")
        bob = "/agents/support-agent/bob"
        server.wait_until(
            lambda: (
                server.http.get(bob, headers=server.operator).json()["state"]["title"]
                == "A case"
            )
        )
