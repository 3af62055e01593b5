import { find, onSubmit, send, show } from "/app.js";

const section = find("#ai", HTMLElement);
const stop = find("#ai [name=stop]", HTMLButtonElement);

/** What was said so far. */
let messages = [];

onSubmit("#ai form", async ({ text }) => {
	const asked = [...messages, { role: "user", content: text }];
	const { body } = await send("POST", "/ai/chat", { messages: asked });
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	const notes = [];
	stop.onclick = () => {
		notes.push("Stopped.");
		reader.cancel();
	};
	let content = "";
	const said = () => [...asked, { role: "assistant", content }];
	for await (const { text, error } of events(reader)) {
		if (error) {
			throw new Error(error.message);
		}
		content += text;
		show(section, lines(said()));
	}
	stop.onclick = null;
	messages = content ? said() : messages;
	return [...lines(messages), ...notes];
});

function lines(said) {
	return said.map(
		({ role, content }) => `${role === "user" ? "You" : "Model"}: ${content}`,
	);
}

/** Yields the events of an answer as they come. */
async function* events(reader) {
	let rest = "";
	for (let next = await reader.read(); !next.done; next = await reader.read()) {
		const parts = (rest + next.value).split("\n\n");
		rest = parts.pop();
		// The others only say that the model still works, or that it has ended.
		for (const part of parts.filter((part) => part.startsWith("data: {"))) {
			yield JSON.parse(part.slice("data: ".length));
		}
	}
}
