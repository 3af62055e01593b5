import { DurableObject } from "cloudflare:workers";
import {
	ApiError,
	app,
	isUpgrade,
	requireTrustedOrigin,
} from "../../base/http/worker";
import { logWarning } from "../../base/log/worker";

const CHAT_MESSAGE_BYTES = 65_536;
const CHAT_MESSAGES = { perSecond: 200, burst: 1000 };

/** What a connection keeps while the object is out of memory. */
type ChatClient = {
	/** When the messages so far would end at the allowed rate, in ms since 1970. */
	busyUntil: number;
};

app.get("/ws/:room", (c) => {
	const room = c.req.param("room");
	if (!/^[A-Za-z0-9_-]{1,64}$/.test(room)) {
		throw new ApiError(
			400,
			"invalid_room",
			"Name the room with 1 to 64 letters, digits, `_` or `-`.",
		);
	}
	if (!isUpgrade(c)) {
		throw new ApiError(426, "upgrade_required", "Connect with a WebSocket.", {
			Upgrade: "websocket",
		});
	}
	requireTrustedOrigin(c);
	return c.env.CHAT_ROOM.getByName(room).fetch(c.req.raw);
});

/** One chat room: what a client sends, every other client gets. */
export class ChatRoom extends DurableObject<Env> {
	constructor(ctx: DurableObjectState, env: Env) {
		super(ctx, env);
		// The runtime answers these by itself, without waking the object.
		this.ctx.setWebSocketAutoResponse(
			new WebSocketRequestResponsePair("ping", "pong"),
		);
	}

	/** Accepts the connection that the Worker has checked. */
	override fetch(): Response {
		const { 0: client, 1: server } = new WebSocketPair();
		// Accepted this way, the object may leave memory while the connection
		// stays open; the next message brings it back.
		this.ctx.acceptWebSocket(server);
		server.serializeAttachment({ busyUntil: 0 } satisfies ChatClient);
		return new Response(null, { status: 101, webSocket: client });
	}

	/** Passes a message on to the room, and confirms it to its sender. */
	override webSocketMessage(
		sender: WebSocket,
		message: string | ArrayBuffer,
	): void {
		// What a client sent before it learned that it was closed.
		if (sender.readyState !== WebSocket.OPEN) {
			return;
		}
		if (typeof message !== "string") {
			sender.close(1003, "Only text messages");
			return;
		}
		const { byteLength } = new TextEncoder().encode(message);
		if (byteLength > CHAT_MESSAGE_BYTES) {
			sender.close(1009, `At most ${CHAT_MESSAGE_BYTES} bytes`);
			return;
		}
		if (isFlooding(sender)) {
			sender.close(1008, `At most ${CHAT_MESSAGES.perSecond} per second`);
			return;
		}
		// A socket stays in the list until its close handshake ends.
		const open = this.ctx
			.getWebSockets()
			.filter((socket) => socket.readyState === WebSocket.OPEN);
		for (const socket of open) {
			if (socket !== sender) {
				socket.send(message);
			}
		}
		sender.send(
			`[Durable Object] message: ${message}, connections: ${open.length}`,
		);
	}

	/** Answers a client's close frame, which ends the handshake. */
	override webSocketClose(socket: WebSocket, code: number): void {
		// Some codes only say how a connection ended; no frame may carry them.
		const isReserved = [1004, 1005, 1006, 1015].includes(code);
		const isValid = code >= 1000 && code < 5000 && !isReserved;
		socket.close(isValid ? code : 1000, "Closed by the client");
	}

	/** Logs a broken connection, such as one with a malformed frame; closes it. */
	override webSocketError(socket: WebSocket, error: unknown): void {
		const room = this.ctx.id.name;
		logWarning("WebSocket error", { room, error: String(error) });
		socket.close(1011, "WebSocket error");
	}
}

/** Counts a message of a client, and tells whether that is one too many. */
function isFlooding(socket: WebSocket): boolean {
	const { perSecond, burst } = CHAT_MESSAGES;
	const now = Date.now();
	const client: ChatClient = socket.deserializeAttachment();
	// Each message takes its share of a second. A burst runs ahead of the clock.
	const busyUntil = Math.max(now, client.busyUntil) + 1000 / perSecond;
	// Both take a microsecond, much less than passing the message on.
	socket.serializeAttachment({ ...client, busyUntil } satisfies ChatClient);
	return busyUntil - now > (1000 / perSecond) * burst;
}
