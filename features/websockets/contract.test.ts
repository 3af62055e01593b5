import { reset, runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, expect, it, vi } from "vitest";

const SITE = "https://example.com";
const UPGRADE = { Upgrade: "websocket" };
const FOREIGN = { Origin: "https://other.example" };

afterEach(async () => {
	env.ALLOWED_ORIGINS = "";
	vi.restoreAllMocks();
	await reset();
});

function ask(room: string, headers: Record<string, string>) {
	const url = `${SITE}/ws/${encodeURIComponent(room)}`;
	return exports.default.fetch(new Request(url, { headers }));
}

async function join(room: string) {
	const { webSocket: socket } = await ask(room, UPGRADE);
	if (!socket) {
		throw new Error("No WebSocket");
	}
	const heard: unknown[] = [];
	socket.addEventListener("message", ({ data }) => {
		heard.push(data);
	});
	const closed = new Promise<CloseEvent>((resolve) => {
		socket.addEventListener("close", resolve);
	});
	socket.accept();
	return { socket, heard, closed };
}

/** The answer to the sender of a message. */
function confirmation(text: string, connections: number) {
	return `[Durable Object] message: ${text}, connections: ${connections}`;
}

it("keeps the order of many messages and loses none", async () => {
	const ada = await join("lobby");
	const bob = await join("lobby");
	const texts = Array.from({ length: 200 }, (_, n) => `message ${n}`);
	for (const text of texts) {
		ada.socket.send(text);
	}
	await vi.waitFor(() => expect(bob.heard).toEqual(texts));
	const confirmed = texts.map((text) => confirmation(text, 2));
	await vi.waitFor(() => expect(ada.heard).toEqual(confirmed));
});

it("keeps rooms apart", async () => {
	const ada = await join("lobby");
	const eve = await join("attic");
	ada.socket.send("hi");
	await vi.waitFor(() => expect(ada.heard).toEqual([confirmation("hi", 1)]));
	eve.socket.send("hello");
	await vi.waitFor(() => expect(eve.heard).toEqual([confirmation("hello", 1)]));
	expect(ada.heard).toHaveLength(1);
});

it("lets the room hear nothing of a ping", async () => {
	const ada = await join("lobby");
	const bob = await join("lobby");
	ada.socket.send("ping");
	await vi.waitFor(() => expect(ada.heard).toEqual(["pong"]));
	ada.socket.send("hi");
	await vi.waitFor(() => expect(bob.heard).toEqual(["hi"]));
});

it.each([
	["its code", 4001, 4001],
	["1000 for 1000", 1000, 1000],
	["1000 for no code", undefined, 1000],
])("gives a closing client a close frame with %s", async (_, code, answer) => {
	const ada = await join("lobby");
	const bob = await join("lobby");
	bob.socket.close(code);
	expect(await bob.closed).toMatchObject({ code: answer, wasClean: true });
	ada.socket.send("hi");
	await vi.waitFor(() => expect(ada.heard).toEqual([confirmation("hi", 1)]));
});

it("takes 65,536 bytes of text, and no byte more", async () => {
	const ada = await join("lobby");
	const bob = await join("lobby");
	const largest = "é".repeat(32_768);
	ada.socket.send(largest);
	await vi.waitFor(() => expect(bob.heard).toEqual([largest]));
	ada.socket.send(`${largest}!`);
	expect((await ada.closed).code).toBe(1009);
	expect(bob.heard).toHaveLength(1);
});

it("hears nothing more of a client that it has closed", async () => {
	const ada = await join("lobby");
	const bob = await join("lobby");
	ada.socket.send(new Uint8Array([1, 2, 3]));
	ada.socket.send("too late");
	expect((await ada.closed).code).toBe(1003);
	bob.socket.send("hi");
	await vi.waitFor(() => expect(bob.heard).toEqual([confirmation("hi", 1)]));
	expect(ada.heard).toEqual([]);
});

it("logs a broken connection with its room, and closes it", async () => {
	const log = vi.spyOn(console, "error").mockImplementation(() => {});
	const { closed } = await join("lobby");
	await runInDurableObject(env.CHAT_ROOM.getByName("lobby"), (room, state) => {
		const [socket] = state.getWebSockets();
		room.webSocketError(socket as WebSocket, new Error("Bad frame"));
	});
	expect((await closed).code).toBe(1011);
	expect(JSON.parse(log.mock.calls[0]?.[0])).toMatchObject({
		message: "WebSocket error",
		room: "lobby",
		error: { message: "Bad frame" },
	});
});

it.each(["a b", "ü", "a".repeat(65), "a.b", "%2e%2e", "a\n"])(
	"refuses the room %j before all else",
	async (room) => {
		expect((await ask(room, FOREIGN)).status).toBe(400);
		expect((await ask(room, { ...UPGRADE, ...FOREIGN })).status).toBe(400);
	},
);

it.each<Record<string, string>>([{}, { Upgrade: "h2c" }])(
	"asks for an upgrade before it looks at the origin: %j",
	async (headers) => {
		const response = await ask("lobby", { ...headers, ...FOREIGN });
		expect(response.status).toBe(426);
		expect(response.headers.get("Upgrade")).toBe("websocket");
	},
);

it.each([
	["a", { Origin: SITE }],
	["a".repeat(64), {}],
	["AZaz09_-", FOREIGN],
])("upgrades in the room %j for %j", async (room, origin) => {
	env.ALLOWED_ORIGINS = FOREIGN.Origin;
	const response = await ask(room, { Upgrade: "WebSocket", ...origin });
	expect(response.status).toBe(101);
	expect(response.headers.get("X-Request-Id")).toMatch(/^[\w-]{36}$/);
	response.webSocket?.accept();
});
