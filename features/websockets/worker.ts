import { DurableObject } from "cloudflare:workers";
import {
	ApiError,
	app,
	isTrustedOrigin,
	logError,
} from "../../base/http/worker";

const WEBSOCKETS_MESSAGE_BYTES = 65_536;

app.get("/ws/:room", (c) => {
	const room = c.req.param("room");
	if (!/^[A-Za-z0-9_-]{1,64}$/.test(room)) {
		throw new ApiError(
			400,
			"invalid_room",
			"A room's name has 1 to 64 letters, digits, `_` or `-`.",
		);
	}
	if (c.req.header("Upgrade")?.toLowerCase() !== "websocket") {
		throw new ApiError(426, "upgrade_required", "Connect with a WebSocket.", {
			Upgrade: "websocket",
		});
	}
	if (!isTrustedOrigin(c)) {
		throw new ApiError(
			403,
			"foreign_origin",
			"Connect from this site or an allowed origin.",
		);
	}
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
		if (byteLength > WEBSOCKETS_MESSAGE_BYTES) {
			sender.close(1009, `At most ${WEBSOCKETS_MESSAGE_BYTES} bytes`);
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

	/** Logs a broken connection and closes it. */
	override webSocketError(socket: WebSocket, error: unknown): void {
		logError("WebSocket error", error);
		socket.close(1011, "WebSocket error");
	}
}
