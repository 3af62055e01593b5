import { onSubmit, send, show } from "/demo/app.js";

const section = document.querySelector("#ai");
const stop = document.querySelector("#ai [name=stop]");

/** The conversation so far, as the model gets it. */
let messages = [];

onSubmit("#ai form", async ({ text: content }) => {
	const asked = [...messages, { role: "user", content }];
	const response = await send("POST", "/ai/chat", { messages: asked });
	const text = response.body.pipeThrough(new TextDecoderStream());
	const reader = text.getReader();
	stop.onclick = () => reader.cancel();
	let answer = "";
	let rest = "";
	for (;;) {
		const { done, value } = await reader.read();
		if (done) {
			return lines(messages);
		}
		const events = (rest + value).split("\n\n");
		rest = events.pop();
		for (const event of events.filter((one) => one.startsWith("data: {"))) {
			const { text, error } = JSON.parse(event.slice("data: ".length));
			if (error) {
				throw new Error(error.message);
			}
			answer += text;
		}
		messages = [...asked, { role: "assistant", content: answer }];
		show(section, lines(messages));
	}
});

function lines(said) {
	return said.map(
		({ role, content }) => `${role === "user" ? "You" : "Model"}: ${content}`,
	);
}
