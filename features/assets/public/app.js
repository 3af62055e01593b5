// What the panels of the page share.

//% if "API_TOKEN" in project.secrets
const tokenField = document.querySelector("#api-token");

//% endif
/**
 * Sends a request to the Worker.
 *
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body] Sent as JSON; a string is JSON already.
 * @returns {Promise<any>} What `read` returns; throws what `read` throws.
 */
export function request(method, path, body) {
	const headers = new Headers();
	//% if "API_TOKEN" in project.secrets
	if (tokenField.value) {
		headers.set("Authorization", `Bearer ${tokenField.value}`);
	}
	//% endif
	if (body === undefined) {
		return read(fetch(path, { method, headers }));
	}
	headers.set("Content-Type", "application/json");
	const json = typeof body === "string" ? body : JSON.stringify(body);
	return read(fetch(path, { method, headers, body: json }));
}

/**
 * Reads what the Worker answers.
 *
 * @param {Promise<Response>} sent The request, from `fetch`.
 * @returns {Promise<any>} The JSON of the answer; `null` when it is none.
 * @throws {Error} With a message for the user, when the Worker refuses, then also
 * with its `status`, or cannot be reached.
 */
export async function read(sent) {
	const response = await sent.catch(() => {
		throw new Error("The Worker cannot be reached.");
	});
	const isJson = response.headers.get("Content-Type")?.includes("json");
	const answer = isJson ? await response.json() : null;
	if (!response.ok) {
		const { status } = response;
		const { message = answer?.message, issues } = answer?.error ?? {};
		const [first] = issues ?? [];
		const text = first ? `${first.path}: ${first.message}` : message;
		throw Object.assign(new Error(text ?? `The answer was ${status}.`), {
			status,
		});
	}
	return answer;
}

/**
 * What a panel shows: a sentence, a list, or values under their names.
 *
 * @typedef {string | string[] | Record<string, string>} Result
 */

/**
 * Lets a form of a panel do something. While it works, the panel is busy and
 * takes nothing else; then its `<output>` shows the result, or what went wrong.
 *
 * @param {string} selector The form.
 * @param {(fields: Record<string, string>) => Promise<Result> | Result} act Gets
 * the values of the fields and of the pressed button, by name.
 */
export function onSubmit(selector, act) {
	const form = document.querySelector(selector);
	const panel = form.closest("section");
	form.addEventListener("submit", async (event) => {
		event.preventDefault();
		if (panel.ariaBusy === "true") {
			return;
		}
		setBusy(panel, true);
		try {
			const fields = new FormData(form, event.submitter);
			show(panel, await act(Object.fromEntries(fields)));
		} catch (error) {
			show(panel, error.message, true);
		}
		setBusy(panel, false);
	});
}

// Buttons stay focusable, so that the keyboard does not lose its place.
function setBusy(panel, isBusy) {
	panel.ariaBusy = String(isBusy);
	for (const button of panel.querySelectorAll("button")) {
		button.ariaDisabled = String(isBusy);
	}
}

/**
 * Shows a result in the `<output>` of a panel.
 *
 * @param {Element} panel
 * @param {Result} result
 * @param {boolean} [isError]
 */
export function show(panel, result, isError = false) {
	const output = panel.querySelector("output");
	output.classList.toggle("error", isError);
	output.replaceChildren(render(result));
}

function render(result) {
	if (typeof result === "string") {
		return element("p", result);
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

function element(name, ...children) {
	const created = document.createElement(name);
	created.append(...children);
	return created;
}
