import { DurableObject } from "cloudflare:workers";
import { Hono } from "hono";
import { ApiError, logError } from "../../base/base/worker";
import { requireTrustedOrigin } from "../../base/origin/worker";

const MESSAGE_BYTES = 65_536;

/** @type {Hono<{ Bindings: Env }>} */
export const chat = new Hono();

chat.get("/ws/:room", (c) => {
	const room = c.req.param("room");
	if (!/^[A-Za-z0-9_-]{1,64}$/.test(room)) {
		const message = "Name the room with 1 to 64 letters, digits, `_` or `-`.";
		throw new ApiError(400, "invalid_room", message);
	}
	if (c.req.header("Upgrade")?.toLowerCase() !== "websocket") {
		const message = "Connect with a WebSocket.";
		const headers = { Upgrade: "websocket" };
		throw new ApiError(426, "upgrade_required", message, headers);
	}
	requireTrustedOrigin(c);
	return c.env.CHAT_ROOM.getByName(room).fetch(c.req.raw);
});

/** One chat room: what a client sends, every other client gets. */
export class ChatRoom extends DurableObject {
	/** Accepts the connection that the route has checked. */
	fetch() {
		const { 0: client, 1: server } = new WebSocketPair();
		// The runtime answers these by itself, without waking the object.
		this.ctx.setWebSocketAutoResponse(
			new WebSocketRequestResponsePair("ping", "pong"),
		);
		// Accepted this way, the object may leave memory while the connection
		// stays open; the next message brings it back.
		this.ctx.acceptWebSocket(server);
		return new Response(null, { status: 101, webSocket: client });
	}

	/** Passes a message on to the room, and confirms it to its sender. */
	webSocketMessage(sender, message) {
		// A client goes on sending until it learns that it was closed.
		if (sender.readyState !== WebSocket.OPEN) {
			return;
		}
		if (typeof message !== "string") {
			sender.close(1003, "Only text messages");
			return;
		}
		if (new TextEncoder().encode(message).length > MESSAGE_BYTES) {
			sender.close(1009, `At most ${MESSAGE_BYTES} bytes`);
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
	webSocketClose(socket, code) {
		// Only these are a client's own; no frame may carry some of the others.
		const isOwn = code >= 3000 && code < 5000;
		socket.close(isOwn ? code : 1000, "Closed by the client");
	}

	/** Closes a broken connection, such as one with a malformed frame. */
	webSocketError(socket, error) {
		logError("WebSocket error", error, { room: this.ctx.id.name });
		socket.close(1011, "WebSocket error");
	}
}
