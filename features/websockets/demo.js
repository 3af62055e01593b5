import { element, find, onSubmit, show } from "/app.js";

const panel = find("#websockets", HTMLElement);
const log = find("#websockets [role=log]", HTMLElement);
const messageField = find("#websockets [name=message]", HTMLInputElement);
const MESSAGES_KEPT = 8;

/** @type {WebSocket | null} The connection to the room, if there is one. */
let socket = null;

onSubmit("#websockets-join", ({ room, action }) => {
	socket?.close(1000);
	socket = null;
	return action === "join" ? join(room) : "You are in no room.";
});

onSubmit("#websockets-send", ({ message }) => {
	if (socket === null) {
		throw new Error("Join a room first.");
	}
	socket.send(message);
	messageField.value = "";
	return "Sent.";
});

/**
 * Connects to a room.
 *
 * @param {string} room
 * @returns {Promise<string>} Resolves once that is done.
 */
function join(room) {
	const { promise, resolve, reject } = Promise.withResolvers();
	const joined = new WebSocket(`/ws/${room}`);
	joined.addEventListener("open", () => {
		socket = joined;
		resolve(`You are in ${room}.`);
	});
	joined.addEventListener("message", ({ data }) => {
		log.append(element("p", data));
		if (log.children.length > MESSAGES_KEPT) {
			log.firstElementChild?.remove();
		}
	});
	joined.addEventListener("close", ({ reason }) => {
		reject(new Error("The room cannot be joined."));
		if (socket === joined) {
			socket = null;
			show(panel, `Disconnected. ${reason}`, true);
		}
	});
	return promise;
}
