// Helpers of the panels: they ask the Worker, and show its answers.

/** Makes an element: `element("p", "See ", element("strong", "this"))`. */
export function element(name, ...children) {
	const created = document.createElement(name);
	created.append(...children);
	return created;
}

/**
 * Sends a request, with the token of the field `#api-token` if there is one. A body
 * that is not text goes as JSON. Throws what a user can read.
 */
export function send(method, path, body, type = "application/json") {
	const headers = new Headers();
	const token = document.querySelector("#api-token")?.value;
	if (token) {
		headers.set("Authorization", `Bearer ${token}`);
	}
	if (body !== undefined) {
		headers.set("Content-Type", type);
	}
	const text = typeof body === "string" ? body : JSON.stringify(body);
	return accept(fetch(path, { method, headers, body: text }));
}

/** Sends a request and reads the answer. */
export function request(method, path, body) {
	return read(send(method, path, body));
}

/** Reads the JSON of an answer; `null` when it has none. */
export async function read(sent) {
	const response = await accept(sent);
	const isJson = response.headers.get("Content-Type")?.includes("json");
	return isJson ? response.json() : null;
}

async function accept(sent) {
	const response = await sent;
	if (response.ok) {
		return response;
	}
	const answer = await response.json().catch(() => ({}));
	const { message, issues } = answer.error ?? answer;
	const [first] = issues ?? [];
	const text = first ? `${first.path}: ${first.message}` : message;
	throw new Error(text ?? `The answer was ${response.status}.`);
}

/**
 * Lets a form act with its fields and the pressed button. The `<output>` of the
 * section that it is in shows what `act` returns, or what went wrong.
 */
export function onSubmit(selector, act) {
	const form = document.querySelector(selector);
	const section = form.closest("section");
	form.addEventListener("submit", async (event) => {
		event.preventDefault();
		if (section.ariaBusy === "true") {
			return;
		}
		section.ariaBusy = "true";
		try {
			const fields = new FormData(form, event.submitter);
			show(section, await act(Object.fromEntries(fields)));
		} catch (error) {
			show(section, error.message, true);
		}
		section.ariaBusy = "false";
	});
}

/** Shows a text, an element, a list of them, or values by name in an `<output>`. */
export function show(section, result, isError = false) {
	const output = section.querySelector("output");
	output.className = isError ? "error" : "";
	output.replaceChildren(render(result));
}

function render(result) {
	if (typeof result === "string") {
		return element("p", result);
	}
	if (result instanceof Node) {
		return result;
	}
	if (Array.isArray(result)) {
		return element("ul", ...result.map((item) => element("li", item)));
	}
	const rows = Object.entries(result).flatMap(([name, value]) => [
		element("dt", name),
		element("dd", value),
	]);
	return element("dl", ...rows);
}

/** Makes a table of rows: objects with the names of the columns. */
export function table(rows) {
	if (rows.length === 0) {
		return "There is nothing yet.";
	}
	const line = (tag, texts) =>
		element("tr", ...texts.map((text) => element(tag, text)));
	return element(
		"table",
		line("th", Object.keys(rows[0])),
		...rows.map((row) => line("td", Object.values(row))),
	);
}
