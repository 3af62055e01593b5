import { evictDurableObject, reset, runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { ChatRoom } from "./worker";

const SITE = "https://example.com";
/** The headers of every request. */
const HEADERS: Record<string, string> = {};

afterEach(async () => {
	env.ALLOWED_ORIGINS = "";
	await reset();
});

function ask(
	room: string,
	headers: Record<string, string> = {},
): Promise<Response> {
	return exports.default.fetch(
		new Request(`${SITE}/ws/${room}`, { headers: { ...HEADERS, ...headers } }),
	);
}

function upgrade(
	room: string,
	headers: Record<string, string> = {},
): Promise<Response> {
	return ask(room, { Upgrade: "websocket", ...headers });
}

/** A client in a room, with all that it was sent so far. */
async function join(room: string) {
	const { webSocket: socket } = await upgrade(room);
	if (!socket) {
		throw new Error("no WebSocket");
	}
	const received: unknown[] = [];
	socket.addEventListener("message", ({ data }) => {
		received.push(data);
	});
	const closed = new Promise<CloseEvent>((resolve) => {
		socket.addEventListener("close", resolve);
	});
	socket.accept();
	return { socket, received, closed };
}

it("confirms a message to its sender and passes it on to the room", async () => {
	const ada = await join("lobby");
	const bob = await join("lobby");
	ada.socket.send("hi");
	await vi.waitFor(() => expect(ada.received).toHaveLength(1));
	await vi.waitFor(() => expect(bob.received).toHaveLength(1));
	expect(ada.received).toEqual([
		"[Durable Object] message: hi, connections: 2",
	]);
	expect(bob.received).toEqual(["hi"]);
});

it("keeps the order of many messages and loses none", async () => {
	const ada = await join("lobby");
	const bob = await join("lobby");
	const texts = Array.from({ length: 200 }, (_, n) => `message ${n}`);
	for (const text of texts) {
		ada.socket.send(text);
	}
	await vi.waitFor(() => expect(bob.received).toHaveLength(200));
	expect(bob.received).toEqual(texts);
});

it("keeps rooms apart", async () => {
	const ada = await join("lobby");
	const eve = await join("attic");
	ada.socket.send("hi");
	await vi.waitFor(() => expect(ada.received).toHaveLength(1));
	eve.socket.send("hello");
	await vi.waitFor(() => expect(eve.received).toHaveLength(1));
	expect(eve.received).toEqual([
		"[Durable Object] message: hello, connections: 1",
	]);
	expect(ada.received).toHaveLength(1);
});

it("goes on talking after the object left memory", async () => {
	const ada = await join("lobby");
	const bob = await join("lobby");
	await evictDurableObject(env.CHAT_ROOM.getByName("lobby"), {
		webSockets: "hibernate",
	});
	ada.socket.send("still here?");
	await vi.waitFor(() => expect(bob.received).toEqual(["still here?"]));
	expect(ada.received).toEqual([
		"[Durable Object] message: still here?, connections: 2",
	]);
});

it("answers ping with pong, and the room hears nothing of it", async () => {
	const ada = await join("lobby");
	const bob = await join("lobby");
	ada.socket.send("ping");
	await vi.waitFor(() => expect(ada.received).toEqual(["pong"]));
	ada.socket.send("hi");
	await vi.waitFor(() => expect(bob.received).toEqual(["hi"]));
});

it("gives a closing client its close frame and counts it no more", async () => {
	const ada = await join("lobby");
	const bob = await join("lobby");
	bob.socket.close(4001, "bye");
	expect((await bob.closed).code).toBe(4001);
	ada.socket.send("alone?");
	await vi.waitFor(() =>
		expect(ada.received).toEqual([
			"[Durable Object] message: alone?, connections: 1",
		]),
	);
});

it.each([999, 1004, 1005, 1006, 1015, 5000])(
	"answers the code %i, which no frame may carry, with 1000",
	async (code) => {
		const close = vi.fn();
		await runInDurableObject(env.CHAT_ROOM.getByName("lobby"), (room) => {
			room.webSocketClose({ close } as unknown as WebSocket, code);
		});
		expect(close).toHaveBeenCalledWith(1000, expect.any(String));
	},
);

it("takes 65,536 bytes of text and closes with 1009 above", async () => {
	const ada = await join("lobby");
	const bob = await join("lobby");
	const largest = "é".repeat(32_768);
	ada.socket.send(largest);
	await vi.waitFor(() => expect(bob.received).toEqual([largest]));
	ada.socket.send(`${largest}!`);
	expect((await ada.closed).code).toBe(1009);
	expect(bob.received).toHaveLength(1);
});

it("closes with 1003 on binary data and hears nothing more", async () => {
	const ada = await join("lobby");
	const bob = await join("lobby");
	ada.socket.send(new Uint8Array([1, 2, 3]));
	ada.socket.send("too late");
	expect((await ada.closed).code).toBe(1003);
	bob.socket.send("hi");
	await vi.waitFor(() =>
		expect(bob.received).toEqual([
			"[Durable Object] message: hi, connections: 1",
		]),
	);
	expect(ada.received).toEqual([]);
});

describe("a client that sends too much", () => {
	let now = 0;

	beforeEach(() => {
		now = Date.now();
		vi.spyOn(Date, "now").mockImplementation(() => now);
	});

	afterEach(() => {
		vi.restoreAllMocks();
	});

	/** Sends messages, and waits until the room has heard all of them. */
	async function flood(
		{ socket }: { socket: WebSocket },
		count: number,
		room: { received: unknown[] },
	): Promise<void> {
		const heard = room.received.length + count;
		for (let sent = 0; sent < count; sent++) {
			socket.send("hi");
		}
		await vi.waitFor(() => expect(room.received).toHaveLength(heard), 15_000);
	}

	it("is closed with 1008 after 1,000 messages at once, and the room goes on", async () => {
		const ada = await join("lobby");
		const bob = await join("lobby");
		await flood(ada, 1000, bob);
		ada.socket.send("one too many");
		expect((await ada.closed).code).toBe(1008);
		bob.socket.send("hi");
		await vi.waitFor(() =>
			expect(bob.received.at(-1)).toBe(
				"[Durable Object] message: hi, connections: 1",
			),
		);
		expect(bob.received).not.toContain("one too many");
	});

	it.each([
		[200, "a second", 1000],
		[1000, "an hour", 3_600_000],
	])("gets %i more messages for %s of rest", async (more, _, rest) => {
		const ada = await join("lobby");
		const bob = await join("lobby");
		await flood(ada, 1000, bob);
		now += rest;
		await flood(ada, more, bob);
		ada.socket.send("one too many");
		expect((await ada.closed).code).toBe(1008);
	});

	it("is not forgotten when the object leaves memory", async () => {
		const ada = await join("lobby");
		const bob = await join("lobby");
		await flood(ada, 1000, bob);
		await evictDurableObject(env.CHAT_ROOM.getByName("lobby"), {
			webSockets: "hibernate",
		});
		ada.socket.send("one too many");
		expect((await ada.closed).code).toBe(1008);
	});
});

it("warns of a broken connection with its room, and closes it", async () => {
	const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
	const error = vi.spyOn(console, "error");
	const close = vi.fn();
	await runInDurableObject(
		env.CHAT_ROOM.getByName("lobby"),
		(room: ChatRoom) => {
			const socket = { close } as unknown as WebSocket;
			room.webSocketError(socket, new Error("Bad frame"));
		},
	);
	expect(close).toHaveBeenCalledExactlyOnceWith(1011, expect.any(String));
	expect(JSON.parse(warn.mock.calls[0]?.[0])).toMatchObject({
		message: "WebSocket error",
		room: "lobby",
		error: "Error: Bad frame",
	});
	expect(error).not.toHaveBeenCalled();
	vi.restoreAllMocks();
});

it("upgrades for this site and for allowed origins only", async () => {
	const own = await upgrade("lobby", { Origin: SITE });
	expect(own.status).toBe(101);
	own.webSocket?.accept();

	const foreign = await upgrade("lobby", { Origin: "https://other.example" });
	expect(foreign.status).toBe(403);

	env.ALLOWED_ORIGINS = "https://other.example";
	const allowed = await upgrade("lobby", { Origin: "https://other.example" });
	expect(allowed.status).toBe(101);
	allowed.webSocket?.accept();
});

it("gives the upgrade an X-Request-Id as well", async () => {
	const response = await upgrade("lobby");
	expect(response.headers.get("X-Request-Id")).toBeTruthy();
	response.webSocket?.accept();
});

it.each<Record<string, string>>([{}, { Upgrade: "h2c" }])(
	"asks for an upgrade with 426, whatever the origin: %j",
	async (headers) => {
		const origin = { Origin: "https://other.example" };
		const response = await ask("lobby", { ...headers, ...origin });
		expect(response.status).toBe(426);
		expect(response.headers.get("Upgrade")).toBe("websocket");
	},
);

it.each(["a".repeat(64), "AZaz09_-"])("takes the room %j", async (room) => {
	const response = await upgrade(room);
	expect(response.status).toBe(101);
	response.webSocket?.accept();
});

const badRooms = ["a b", "ü", "a".repeat(65), "a.b", "%2e%2e", "a\n"];

it.each(badRooms)("refuses the room %j, upgrade or not", async (room) => {
	const response = await ask(encodeURIComponent(room));
	expect(response.status).toBe(400);
	const foreign = { Origin: "https://other.example" };
	const upgraded = await upgrade(encodeURIComponent(room), foreign);
	expect(upgraded.status).toBe(400);
});
