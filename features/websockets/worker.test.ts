import { evictDurableObject, reset } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, expect, it, vi } from "vitest";

/** The headers of every connection. */
const UPGRADE = { Upgrade: "websocket" };

afterEach(async () => {
	await reset();
});

function connect(room: string, headers: Record<string, string> = {}) {
	const url = `https://example.com/ws/${room}`;
	const init = { headers: { ...UPGRADE, ...headers } };
	return exports.default.fetch(new Request(url, init));
}

/** Joins a room. `heard` grows with what the client gets. */
async function join(room: string) {
	const socket = (await connect(room)).webSocket as WebSocket;
	const heard: unknown[] = [];
	socket.addEventListener("message", ({ data }) => {
		heard.push(data);
	});
	const closed = new Promise<number>((resolve) => {
		socket.addEventListener("close", ({ code }) => resolve(code));
	});
	socket.accept();
	return { socket, heard, closed };
}

it("confirms a message to its sender and passes it on to the room", async () => {
	const ada = await join("lobby");
	const bob = await join("lobby");
	ada.socket.send("hi");
	await vi.waitFor(() => expect(bob.heard).toEqual(["hi"]));
	await vi.waitFor(() =>
		expect(ada.heard).toEqual(["[Durable Object] message: hi, connections: 2"]),
	);
});

it("goes on talking after the object has left memory", async () => {
	const ada = await join("lobby");
	const bob = await join("lobby");
	await evictDurableObject(env.CHAT_ROOM.getByName("lobby"), {
		webSockets: "hibernate",
	});
	ada.socket.send("still here?");
	await vi.waitFor(() => expect(bob.heard).toEqual(["still here?"]));
});

it("answers ping with pong", async () => {
	const { socket, heard } = await join("lobby");
	socket.send("ping");
	await vi.waitFor(() => expect(heard).toEqual(["pong"]));
});

it.each([
	["more than 65,536 bytes", "x".repeat(65_537), 1009],
	["binary data", new Uint8Array([1, 2, 3]), 1003],
])("closes the connection of a client that sends %s", async (_, data, code) => {
	const { socket, closed } = await join("lobby");
	socket.send(data);
	expect(await closed).toBe(code);
});

it("refuses a bad name of a room", async () => {
	const response = await connect("a.b");
	expect(response.status).toBe(400);
	expect(await response.json()).toMatchObject({
		error: { code: "invalid_room" },
	});
});

it("asks for an upgrade", async () => {
	const response = await connect("lobby", { Upgrade: "" });
	expect(response.status).toBe(426);
	expect(response.headers.get("Upgrade")).toBe("websocket");
});

it("refuses the pages of other sites", async () => {
	const foreign = { Origin: "https://other.example" };
	expect((await connect("lobby", foreign)).status).toBe(403);
});
