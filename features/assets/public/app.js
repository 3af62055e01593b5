// What a page needs to talk to the Worker and to show what it answers.

/**
 * Finds an element of the page.
 *
 * @template {Element} T
 * @param {string} selector
 * @param {new () => T} type Such as `HTMLInputElement`.
 * @returns {T} The first that matches.
 * @throws {Error} When none does, or it is of another type.
 */
export function find(selector, type) {
	const found = document.querySelector(selector);
	if (found instanceof type) {
		return found;
	}
	throw new Error(`The page has no ${type.name} at ${selector}.`);
}

/**
 * Makes an element: `element("p", "See ", element("strong", "this"))`.
 *
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {(string | Node)[]} children
 * @returns {HTMLElementTagNameMap[Name]}
 */
export function element(name, ...children) {
	const created = document.createElement(name);
	created.append(...children);
	return created;
}

/**
 * Sends a request to the Worker, with the token in the field `#api-token`, where
 * the page has one and it is filled in.
 *
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body] Sent as JSON; a string is JSON already.
 * @returns {Promise<any>} What `read` returns; throws what `read` throws.
 */
export function request(method, path, body) {
	const headers = new Headers();
	const field = document.querySelector("#api-token");
	if (field instanceof HTMLInputElement && field.value) {
		headers.set("Authorization", `Bearer ${field.value}`);
	}
	if (body === undefined) {
		return read(fetch(path, { method, headers }));
	}
	headers.set("Content-Type", "application/json");
	const json = typeof body === "string" ? body : JSON.stringify(body);
	return read(fetch(path, { method, headers, body: json }));
}

/** An answer with which the Worker refuses a request. */
export class Refusal extends Error {
	/**
	 * @param {string} message For the user.
	 * @param {number} status
	 */
	constructor(message, status) {
		super(message);
		this.status = status;
	}
}

/**
 * Reads what the Worker answers.
 *
 * @param {Promise<Response>} sent The request, from `fetch`.
 * @returns {Promise<any>} The JSON of the answer; `null` when it is not JSON.
 * @throws {Refusal} When the Worker refuses.
 * @throws {Error} When it cannot be reached; the message is for the user too.
 */
export async function read(sent) {
	const response = await sent.catch(() => {
		throw new Error("The Worker cannot be reached.");
	});
	const isJson = response.headers.get("Content-Type")?.includes("json");
	const answer = isJson ? await response.json() : null;
	if (!response.ok) {
		const { message = answer?.message, issues } = answer?.error ?? {};
		const [first] = issues ?? [];
		const text = first ? `${first.path}: ${first.message}` : message;
		throw new Refusal(
			text ?? `The answer was ${response.status}.`,
			response.status,
		);
	}
	return answer;
}

/**
 * What an `<output>` shows: a sentence or an element, a list of them, or values
 * under their names.
 *
 * @typedef {string | Node} Content
 * @typedef {Record<string, Content>} Values
 * @typedef {Content | Content[] | Values} Result
 */

/**
 * Lets a form do something. While it works, the section that it is in is busy and
 * takes nothing else; then the section's `<output>` shows the result, or what went
 * wrong.
 *
 * @param {string} selector The form.
 * @param {(fields: Record<string, string>) => Promise<Result> | Result} act Gets
 * the values of the fields and of the pressed button, by name.
 */
export function onSubmit(selector, act) {
	const form = find(selector, HTMLFormElement);
	const section = form.closest("section") ?? form;
	form.addEventListener("submit", async (event) => {
		event.preventDefault();
		if (section.ariaBusy === "true") {
			return;
		}
		setBusy(section, true);
		try {
			const fields = [...new FormData(form, event.submitter)];
			const texts = fields.map(([name, value]) => [name, String(value)]);
			show(section, await act(Object.fromEntries(texts)));
		} catch (error) {
			show(section, error instanceof Error ? error.message : "", true);
		}
		setBusy(section, false);
	});
}

/**
 * Buttons stay focusable, so that the keyboard does not lose its place.
 *
 * @param {Element} section
 * @param {boolean} isBusy
 */
function setBusy(section, isBusy) {
	section.ariaBusy = String(isBusy);
	for (const button of section.querySelectorAll("button")) {
		button.ariaDisabled = String(isBusy);
	}
}

/**
 * Shows a result in the `<output>` of a section.
 *
 * @param {Element} section
 * @param {Result} result
 * @param {boolean} [isError]
 */
export function show(section, result, isError = false) {
	const output = section.querySelector("output");
	output?.classList.toggle("error", isError);
	output?.replaceChildren(render(result));
}

/**
 * @param {Result} result
 * @returns {Node}
 */
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

/**
 * Makes a table, which a form can show as its result.
 *
 * @param {Values[]} rows Their values stand below the names of those of the first.
 * @returns {HTMLTableElement}
 */
export function table(rows) {
	const names = Object.keys(rows[0] ?? {});
	const head = names.map((name) =>
		Object.assign(element("th", name), { scope: "col" }),
	);
	const body = rows.map((row) =>
		element("tr", ...names.map((name) => element("td", row[name] ?? ""))),
	);
	return element(
		"table",
		element("thead", element("tr", ...head)),
		element("tbody", ...body),
	);
}
