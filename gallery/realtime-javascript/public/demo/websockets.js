import { element, onSubmit, show } from "/demo/app.js";

const panel = document.querySelector("#websockets");
const log = document.querySelector("#websockets [role=log]");
let socket = null;

onSubmit("#websockets-join", ({ room, action }) => {
	socket?.close();
	socket = null;
	return action === "join" ? join(room) : "You are in no room.";
});

onSubmit("#websockets-send", ({ message }) => {
	if (!socket) {
		throw new Error("Join a room first.");
	}
	socket.send(message);
	return "Sent.";
});

/** Connects to a room, and resolves to what the panel then says. */
function join(room) {
	const { promise, resolve, reject } = Promise.withResolvers();
	const joined = new WebSocket(`/ws/${room}`);
	joined.onopen = () => {
		socket = joined;
		resolve(`You are in ${room}.`);
	};
	joined.onmessage = ({ data }) => {
		log.prepend(element("p", data));
		log.children[8]?.remove();
	};
	joined.onclose = ({ reason }) => {
		reject(new Error("The room cannot be joined."));
		if (socket === joined) {
			socket = null;
			show(panel, `Disconnected. ${reason}`, true);
		}
	};
	return promise;
}
