import { find, onSubmit, read, show } from "/app.js";

const section = find("#ai", HTMLElement);
const stop = find("#ai [name=stop]", HTMLButtonElement);
const tokenField = find("#api-token", HTMLInputElement);

/**
 * @typedef Said
 * @property {"user" | "assistant"} role
 * @property {string} content
 *
 * @typedef Piece
 * @property {string} [text]
 * @property {boolean} [truncated]
 */

/**
 * What was said so far.
 *
 * @type {Said[]}
 */
let messages = [];

onSubmit("#ai form", async ({ text = "" }) => {
	const abort = new AbortController();
	stop.onclick = () => abort.abort();
	// Of a section that is busy, it is the one button that does something.
	stop.ariaDisabled = "false";
	/** @type {Said[]} */
	const asked = [...messages, { role: "user", content: text }];
	const notes = [];
	let answer = "";
	/** @returns {Said[]} */
	const said = () => [...asked, { role: "assistant", content: answer }];
	try {
		for await (const { text: piece = "", truncated } of ask(
			asked,
			abort.signal,
		)) {
			answer += piece;
			if (truncated) {
				notes.push("The answer was cut off: it had reached the model's limit.");
			}
			show(section, lines(said()));
		}
	} catch (error) {
		if (!abort.signal.aborted) {
			throw error;
		}
		notes.push("Stopped.");
	}
	messages = answer === "" ? messages : said();
	return [...lines(messages), ...notes];
});

/** @param {Said[]} said */
function lines(said) {
	return said.map(({ role, content }) =>
		role === "user" ? `You: ${content}` : `Model: ${content}`,
	);
}

/**
 * Asks the model, and yields the events of its answer.
 *
 * @param {Said[]} said
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Piece>}
 */
async function* ask(said, signal) {
	const headers = new Headers({ "Content-Type": "application/json" });
	if (tokenField.value) {
		headers.set("Authorization", `Bearer ${tokenField.value}`);
	}
	const body = JSON.stringify({ messages: said });
	const sent = fetch("/ai/chat", { method: "POST", headers, body, signal });
	const response = await sent.catch((error) => {
		signal.throwIfAborted();
		return read(Promise.reject(error));
	});
	if (!response.ok) {
		await read(Promise.resolve(response));
	}
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = "";
	for (;;) {
		const { done, value } = await reader.read();
		if (done) {
			throw new Error("The answer broke off.");
		}
		const events = (rest + value).split("\n\n");
		rest = events.pop() ?? "";
		for (const event of events) {
			if (!event.startsWith("data: ")) {
				continue; // Only says that the model still works.
			}
			const data = event.slice("data: ".length);
			if (data === "[DONE]") {
				return;
			}
			const { error, ...more } = JSON.parse(data);
			if (error) {
				throw new Error(error.message);
			}
			yield more;
		}
	}
}
