"""Agents under `wrangler dev`, with a stand-in for the API of a model."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from demo import opened, panel_of
from dev_server import DevServer, serve
from internet import MODEL_KEY, Model
from parts import FEATURES
from projects import edit
from toolchain import assert_checked, link_toolchain, node, run, run_tests
from workbench import NODE

full = pytest.mark.full


def path(name: str) -> str:
    """Return the path of an agent."""
    return f"/agents/ai-agent/{name}"


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


def wait_for(socket: ClientConnection, kind: str) -> dict:
    """Return the next frame of a kind."""
    while (frame := json.loads(socket.recv(20)))["type"] != kind:
        pass
    return frame


def call(socket: ClientConnection, method: str, *arguments: object) -> object:
    """Call a method and return its result."""
    request = {"type": "rpc", "id": "1", "method": method, "args": arguments}
    socket.send(json.dumps(request))
    frame = wait_for(socket, "rpc")
    assert frame["success"], frame
    return frame.get("result")


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


@pytest.fixture(scope="module")
def new_project(render: Callable[..., Path], model: Model) -> Callable[..., Path]:
    """Return a function that makes a project of some features and that model."""

    def new_project(*features: str) -> Path:
        project = link_toolchain(render([*features], ai_provider="openai"))
        return model.connect(project)

    return new_project


@pytest.fixture(scope="module")
def server(new_project: Callable[..., Path]) -> Iterator[DevServer]:
    """A server whose demo shows the agents."""
    with serve(new_project("agents", "assets")) as server:
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
        events = (line for line in response.iter_lines() if line.startswith("data"))
        assert next(events) == 'data: {"text":"Hel"}'
        model.pieces.put("lo!")
        assert next(events) == 'data: {"text":"lo!"}'
        model.pieces.put(None)
        assert list(events) == ["data: [DONE]"]
    assert messages(server, "http") == [("user", "Hi"), ("assistant", "Hello!")]


def test_a_reply_over_a_websocket_arrives_piece_by_piece(
    server: DevServer, model: Model
) -> None:
    with join(server, "socket", new_ticket(server, "socket")) as socket:
        socket.send("Hi")
        for piece in ("Hel", "lo", "!"):
            model.pieces.put(piece)
            assert wait_for(socket, "piece")["text"] == piece
        model.pieces.put(None)
        wait_for(socket, "done")


def test_a_client_that_goes_away_ends_the_work_of_the_model(
    server: DevServer, model: Model
) -> None:
    model.closed.clear()
    model.pieces.put("Hel")
    with server.http.stream(
        "POST", path("away"), json={"message": "Hi"}, headers=server.operator
    ) as response:
        next(response.iter_lines())
    deadline = time.monotonic() + 20
    while not model.closed.wait(0.2):
        assert time.monotonic() < deadline
        model.pieces.put("lo")
    while not model.pieces.empty():
        model.pieces.get()
    assert messages(server, "away") == []


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


@full
def test_a_conversation_and_its_reminders_survive_a_restart(
    new_project: Callable[..., Path], model: Model
) -> None:
    project = new_project("agents")
    with serve(project) as server:
        model.say("Hello!")
        with join(server, "ada", new_ticket(server, "ada")) as socket:
            socket.send("Hi")
            wait_for(socket, "done")
            call(socket, "addReminder", {"text": "Tea", "seconds": 5})
        server.stop()
    with serve(project) as server:
        server.wait_until(lambda: ("reminder", "Tea") in messages(server, "ada"))
        model.say("Yes.")
        again = {"json": {"message": "And now?"}, "headers": server.operator}
        server.http.post(path("ada"), **again)
        said = [text for _, text in messages(server, "ada")]
    assert said == ["Hi", "Hello!", "Tea", "And now?", "Yes."]
    asked = [message["content"] for message in model.requests[-1]["messages"]]
    assert asked[1:] == ["Hi", "Hello!", "And now?"]


# --- Who gets in ----------------------------------------------------------------


def test_a_ticket_opens_one_websocket_to_one_agent(server: DevServer) -> None:
    ticket = new_ticket(server, "ada")
    assert refusal(server, "bob", ticket) == 401
    foreign = "https://other.example"
    assert refusal(server, "ada", ticket, origin=foreign) == 403
    with join(server, "ada", ticket, origin=server.url):
        assert refusal(server, "ada", ticket) == 401
    assert server.http.get(f"{path('ada')}?ticket={ticket}").status_code == 401


def test_no_ticket_token_or_message_is_in_the_log(
    server: DevServer, model: Model
) -> None:
    ticket = new_ticket(server, "log")
    model.say("the words of the model")
    with join(server, "log", ticket) as socket:
        socket.send("the words of the user")
        wait_for(socket, "done")
    refusal(server, "log", ticket)
    log = server.log.read_text()
    for secret in (ticket, server.token, MODEL_KEY, "the words of the"):
        assert secret not in log


# --- Agents of the user's own ------------------------------------------------------

#: A class that a user writes below `// Your code`, with a guard of its own.
OWN_AGENT = """
/** Answers customers, and knows their orders. */
export class SupportAgent extends AiAgent {
	protected override instructions(): string {
		return "You help the customers of a shop.";
	}

	protected override tools(): ModelTool[] {
		return [
			modelTool(
				"orderStatus",
				"Tells the status of an order.",
				z.strictObject({ order: z.string() }),
				({ order }) => `${order} was sent`,
			),
		];
	}

	/** Greets a customer. */
	@forClients
	async greet(name: string): Promise<string> {
		return `Hello ${parseInput(z.string(), name)}`;
	}
}
"""
OWN_ROUTES = """
app.route(
	"/",
	makeAgentRoutes(
		"support-agent",
		(env) => env.Support,
		async (c, next) => {
			if (c.req.param("name") === "closed") {
				throw new ApiError(403, "closed", "This agent is closed.");
			}
			await operatorOnly(c, next);
		},
	),
);
"""

#: The user's tests of it, over HTTP and over a WebSocket.
OWN_TEST = """
import { env, exports } from "cloudflare:workers";
import { afterEach, expect, it, vi } from "vitest";
import { answer, answerTool, asked } from "./provider";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const ADA = "/agents/support-agent/ada";

afterEach(() => vi.restoreAllMocks());

function request(path: string, init: RequestInit = {}): Promise<Response> {
	const headers = { ...OPERATOR, ...init.headers };
	const url = `https://example.com${path}`;
	return exports.default.fetch(new Request(url, { ...init, headers }));
}

function say(message: string, path = ADA): Promise<Response> {
	const headers = { "Content-Type": "application/json" };
	const body = JSON.stringify({ message });
	return request(path, { method: "POST", headers, body });
}

async function texts(path = ADA): Promise<string[]> {
	const response = await request(path);
	const { messages } = await response.json<{ messages: { text: string }[] }>();
	return messages.map(({ text }) => text);
}

it("chats with its own instructions and tools, and is cleared", async () => {
	answerTool("orderStatus", { order: "7" }, "Yes.");
	expect(await (await say("Where is 7?")).text()).toContain("Yes.");
	expect(asked[0]?.body).toContain("You help the customers of a shop.");
	expect(asked[0]?.body).toContain("Tells the status of an order.");
	expect(asked[1]?.body).toContain("7 was sent");
	expect(await texts()).toEqual(["Where is 7?", "Yes."]);
	expect(await texts("/agents/ai-agent/ada")).toEqual([]);
	expect((await request(ADA, { method: "DELETE" })).status).toBe(204);
	expect(await texts()).toEqual([]);
	answer("Yes.");
	await (await say("Hi", "/agents/ai-agent/ada")).text();
	expect(asked[0]?.body).not.toContain("orderStatus");
});

it("lets in whom its guard lets in", async () => {
	const stranger = await request(ADA, { headers: { Authorization: "" } });
	expect(stranger.status).toBe(401);
	for (const [method, place] of [
		["GET", ""],
		["POST", ""],
		["DELETE", ""],
		["POST", "/ticket"],
	]) {
		const path = `/agents/support-agent/closed${place}`;
		expect((await request(path, { method: `${method}` })).status).toBe(403);
	}
});

it("has tickets, and answers and takes calls over a WebSocket", async () => {
	const made = await request(`${ADA}/ticket`, { method: "POST" });
	const { ticket } = await made.json<{ ticket: string }>();
	const headers = { Upgrade: "websocket", Authorization: "" };
	const other = `/agents/ai-agent/ada?ticket=${ticket}`;
	expect((await request(other, { headers })).status).toBe(401);
	const own = await request(`${ADA}?ticket=${ticket}`, { headers });
	expect(own.status).toBe(101);

	answer("Hello!");
	const frames: unknown[] = [];
	own.webSocket?.addEventListener("message", ({ data }) => {
		frames.push(JSON.parse(String(data)));
	});
	own.webSocket?.accept();
	const call = { type: "rpc", id: "1", method: "greet", args: ["Bob"] };
	own.webSocket?.send(JSON.stringify(call));
	own.webSocket?.send("Hi");
	await vi.waitFor(() => expect(frames).toContainEqual({ type: "done" }));
	expect(frames).toContainEqual({ type: "piece", text: "Hello!" });
	const greeted = { type: "rpc", success: true, result: "Hello Bob" };
	expect(frames).toContainEqual(expect.objectContaining(greeted));
});
"""

#: The imports of a file of the class's own, by the layout.
OWN_IMPORTS = {
    "single-file": """
import * as z from "zod";
import {
	AiAgent,
	forClients,
	type ModelTool,
	modelTool,
	parseInput,
} from "./index";
""",
    "modules": """
import * as z from "zod";
import { AiAgent, forClients } from "./agents";
import { parseInput } from "./base";
import { type ModelTool, modelTool } from "./provider";
""",
}
#: Those that its routes need in `src/index.ts` with `modules`.
ROUTES_IMPORTS = """
import { operatorOnly } from "./access";
import { makeAgentRoutes } from "./agents";
import { ApiError } from "./base";
"""


@full
@pytest.mark.parametrize(
    ("features", "layout", "has_file"),
    [
        (["agents"], "modules", True),
        (["agents"], "single-file", True),
        (["agents"], "single-file", False),
        (FEATURES, "single-file", False),
    ],
)
def test_a_second_class_of_agents_needs_no_copied_line(
    render: Callable[..., Path], features: list[str], layout: str, has_file: bool
) -> None:
    project = link_toolchain(render(features, layout=layout, project_name="shop"))
    if has_file:
        add_file_of_own_agent(project, layout)
    else:
        edit(project, "src/index.ts", "// Your code", OWN_AGENT + OWN_ROUTES.rstrip())
    add_own_agent(project)

    assert_checked(project)
    run_tests(project, "test/support.test.ts")


def add_file_of_own_agent(project: Path, layout: str) -> None:
    """Give a project a file with a class of agents of the user's own."""
    code = OWN_AGENT
    own_class = "export class SupportAgent extends AiAgent"
    assert own_class in code
    join, bring = 'export { SupportAgent } from "./support";', ROUTES_IMPORTS.strip()
    if layout == "single-file":
        # The base class is not there yet while the file loads.
        factory = "export function supportAgent() {\nreturn class extends AiAgent"
        code = code.replace(own_class, factory) + "}\n"
        join = "export class SupportAgent extends supportAgent() {}"
        bring = 'import { supportAgent } from "./support";'
    (project / "src/support.ts").write_text(OWN_IMPORTS[layout].lstrip() + code)
    edit(project, "src/index.ts", "// Your imports", bring)
    edit(project, "src/index.ts", "// Your code", f"\n{join}\n{OWN_ROUTES.rstrip()}")
    node(project, "biome", "format", "--write", "src/support.ts")


def add_own_agent(project: Path) -> None:
    """Give a project with the code of such a class its config and its tests."""
    entry = '\t\t\t{ "name": "Support", "class_name": "SupportAgent" },'
    config = project / "wrangler.jsonc"
    lines = config.read_text().split("\n")
    lines.insert(lines.index("\t\t\t// Your durable_objects"), entry)
    migration = '\t\t{ "tag": "user-1", "new_sqlite_classes": ["SupportAgent"] },'
    (place,) = (line for line in lines if "// Your migrations" in line)
    lines.insert(lines.index(place), migration)
    config.write_text("\n".join(lines))
    (project / "test/support.test.ts").write_text(OWN_TEST.lstrip())


# --- The React client ------------------------------------------------------------


@contextmanager
def opened_agent(chromium: Browser, server: DevServer, name: str) -> Iterator[Locator]:
    """Open an agent in the demo, as somebody new; the block gets its panel."""
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.url}/demo/")
        page.get_by_label("API token").fill(server.token)
        panel = panel_of(page, "agents")
        panel.get_by_label("Name").fill(name)
        open_agent(panel)
        yield panel


def open_agent(panel: Locator | Page) -> None:
    """Open the agent that is named there, and wait until it answers."""
    panel.get_by_role("button", name="Open").click()
    expect(panel.get_by_label("Title")).to_be_enabled(timeout=20_000)


def rename(panel: Locator, title: str) -> None:
    """Give the agent of a panel another title."""
    panel.get_by_label("Title").fill(title)
    panel.get_by_role("button", name="Rename").click()


def test_two_browsers_show_one_conversation_while_it_goes_on(
    server: DevServer, model: Model, chromium: Browser
) -> None:
    with (
        opened_agent(chromium, server, "shared") as ada,
        opened_agent(chromium, server, "shared") as bob,
    ):
        said = [
            panel.get_by_role("log").get_by_role("paragraph") for panel in (ada, bob)
        ]
        rename(ada, "Plans")
        expect(bob.get_by_label("Title")).to_have_value("Plans")

        ada.get_by_label("Message").fill("Hi")
        ada.get_by_role("button", name="Send").click()
        model.pieces.put("Hel")
        expect(ada.get_by_text("Hel", exact=True)).to_be_visible()
        model.say("lo!")
        for shown in said:
            expect(shown).to_have_text(["user Hi", "assistant Hello!"])

        ada.get_by_label("Remind me of").fill("Tea")
        ada.get_by_label("In so many seconds").fill("1")
        ada.get_by_role("button", name="Remind").click()
        for shown in said:
            expect(shown.last).to_have_text("reminder Tea", timeout=20_000)

        cleared = server.http.delete(path("shared"), headers=server.operator)
        assert cleared.status_code == 204
        for shown in said:
            expect(shown).to_have_count(0)


def test_a_browser_shows_what_is_refused(server: DevServer, chromium: Browser) -> None:
    with opened_agent(chromium, server, "refusing") as panel:
        rename(panel, "x" * 101)
        expect(panel.get_by_role("alert")).to_have_text("State update rejected")
        panel.get_by_label("Remind me of").fill("Tea")
        panel.get_by_label("In so many seconds").fill("0")
        panel.get_by_role("button", name="Remind").click()
        expect(panel.get_by_role("alert")).to_contain_text("seconds: ")

        panel.page.get_by_label("API token").fill("wrong")
        panel.get_by_role("button", name="Open").click()
        expect(panel.locator("output")).to_contain_text("Authorization", timeout=20_000)
        expect(panel.get_by_label("Title")).to_have_count(0)

        panel.page.get_by_label("API token").fill(server.token)
        open_agent(panel)


def test_a_browser_that_loses_its_connection_gets_a_new_ticket(
    server: DevServer, chromium: Browser
) -> None:
    with opened_agent(chromium, server, "again") as ada:
        with (
            ada.page.expect_response(lambda sent: sent.url.endswith("/ticket")) as sent,
            (server.project / "src/index.ts").open("a") as code,
        ):
            # A change of the code disconnects everybody, as a deploy does.
            code.write("\n")
        assert sent.value.status == 201
        expect(ada.get_by_label("Title")).to_be_enabled(timeout=20_000)
        rename(ada, "Plans")
        with opened_agent(chromium, server, "again") as bob:
            expect(bob.get_by_label("Title")).to_have_value("Plans")


@full
def test_a_page_of_the_users_shows_the_agents_when_the_demo_is_deleted(
    new_project: Callable[..., Path], chromium: Browser
) -> None:
    project = new_project("agents", "assets")
    shutil.rmtree(project / "public/demo")
    index = project / "public/index.html"
    mine = (
        '<label>API token <input id="api-token"></label><div id="agent"></div>'
        '<script type="module" src="/dist/agents.js"></script>'
    )
    index.write_text(index.read_text().replace("<main>", f"<main>{mine}"))
    with serve(project) as server, opened(chromium, server, path="/") as page:
        page.get_by_label("API token").fill(server.token)
        open_agent(page)


@full
def test_a_client_that_does_not_build_is_all_that_the_type_check_blames(
    render: Callable[..., Path],
) -> None:
    project = link_toolchain(render(["agents", "assets"]))
    client = project / "client/agents.tsx"
    client.write_text(f'import "./missing";\n{client.read_text()}')
    with pytest.raises(AssertionError, match="Could not resolve") as failed:
        run([NODE, "--run", "typecheck"], project)
    assert "error TS" not in str(failed.value)
