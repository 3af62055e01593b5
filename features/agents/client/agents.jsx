// The panel of the agents.

import { useAgent } from "agents/react";
import { Suspense, useCallback, useState } from "react";
import { createRoot } from "react-dom/client";
import { onSubmit, request, show } from "/app.js";

const MESSAGES_SHOWN = 100;
const RETRY_MS = 2000;
const LONGEST_RETRY_MS = 60_000;
/** As long as a timer can be: a connection lasts until it is lost. */
const FOREVER_MS = 2 ** 31 - 1;

/** The controls of an agent, from top to bottom. */
const CONTROLS = [
	Title,
	Messages,
	Chat,
	RemindMe,
	//% if "workflows" in features
	Approval,
	//% endif
	// Your controls
];

const container = document.querySelector("#agents-conversation");
const root = createRoot(container);
/** How often an agent has been opened. */
let opened = 0;

onSubmit("#agents-open", async ({ name }) => {
	// Tells now what a connection that is refused would not.
	await request("GET", `/agents/ai-agent/${name}`);
	opened += 1;
	root.render(
		<Suspense fallback={<p>Connecting …</p>}>
			<Conversation key={opened} name={name} id={opened} />
		</Suspense>,
	);
	return `${name} is open.`;
});

/**
 * Gets a ticket. Goes on trying while the Worker is away, less and less often,
 * but not once it refuses: then the panel closes, and says why.
 */
async function newTicket(name, id) {
	let ms = RETRY_MS;
	while (id === opened) {
		try {
			return await request("POST", `/agents/ai-agent/${name}/ticket`);
		} catch ({ message, status = 0 }) {
			if (status >= 400 && status < 500 && status !== 429) {
				root.render(null);
				show(container.closest("section"), message, true);
				break;
			}
			await new Promise((resolve) => setTimeout(resolve, ms));
			ms = Math.min(ms * 2, LONGEST_RETRY_MS);
		}
	}
	// Nobody needs it any more.
	return new Promise(() => {});
}

/** One agent, as long as the panel shows it. */
function Conversation({ name, id }) {
	const [messages, setMessages] = useState([]);
	const query = useCallback(() => newTicket(name, id), [name, id]);
	const agent = useAgent({
		agent: "AiAgent",
		name,
		// A ticket is good once: each connection asks for another.
		query,
		queryDeps: [id],
		cacheTtl: FOREVER_MS,
		onMessage({ data }) {
			const frame = JSON.parse(data);
			if (frame.type === "messages") {
				setMessages((known) => merge(known, frame.messages));
			} else if (frame.type === "cleared") {
				setMessages([]);
			}
		},
	});
	return CONTROLS.map((Control) => (
		<Control key={Control.name} agent={agent} messages={messages} />
	));
}

/** The newest messages, each once, in their order. */
function merge(known, added) {
	const byId = new Map([...known, ...added].map((one) => [one.id, one]));
	return [...byId.values()].sort((a, b) => a.id - b.id).slice(-MESSAGES_SHOWN);
}

/** The title, which any page may change for all of them. */
function Title({ agent }) {
	const title = agent.state?.title ?? "";
	return (
		<Form act={({ title }) => agent.call("setTitle", [title])}>
			<label>
				Title
				<input
					// Another page's title takes the place of what is written here.
					key={title}
					name="title"
					defaultValue={title}
					maxLength={100}
					disabled={!agent.identified}
					autoComplete="off"
				/>
			</label>
			<button type="submit">Rename</button>
		</Form>
	);
}

function Messages({ messages }) {
	return (
		<div role="log" aria-label="Conversation">
			{messages.map(({ id, role, text }) => (
				<p key={id}>
					<strong>{role}</strong> {text}
				</p>
			))}
		</div>
	);
}

/** A form that acts with its fields and the pressed button, or shows what went wrong. */
function Form({ act, children }) {
	const [error, setError] = useState("");
	async function submit(event) {
		event.preventDefault();
		const form = event.currentTarget;
		setError("");
		try {
			const { submitter } = event.nativeEvent;
			await act(Object.fromEntries(new FormData(form, submitter)));
			form.reset();
		} catch ({ message }) {
			// The agent says `code: message`.
			setError(message.replace(/^\w+: /, ""));
		}
	}
	return (
		<form onSubmit={submit}>
			{children}
			<p role="alert">{error}</p>
		</form>
	);
}

/** Sends a message and shows the reply while it comes, or clears them all. */
function Chat({ agent }) {
	const [reply, setReply] = useState("");
	const [note, setNote] = useState("");
	async function send({ message, clear }) {
		setNote("");
		if (clear) {
			return agent.call("clear");
		}
		const onChunk = (piece) => setReply((before) => before + piece);
		try {
			const end = await agent.call("chat", [message], { stream: { onChunk } });
			setNote(end?.truncated ? "The reply was too long and was cut." : "");
		} finally {
			setReply("");
		}
	}
	return (
		<Form act={send}>
			<label>
				Message
				<input name="message" required maxLength={8000} autoComplete="off" />
			</label>
			<div>
				<button type="submit">Send</button>
				<button type="submit" name="clear" value="all" formNoValidate>
					Clear
				</button>
			</div>
			<p aria-live="polite">{reply || note}</p>
		</Form>
	);
}

function RemindMe({ agent }) {
	function add({ text, delay }) {
		const when = { delaySeconds: Number(delay) };
		return agent.call("addReminder", [{ text, when }]);
	}
	return (
		<Form act={add}>
			<label>
				Remind me of
				<input name="text" required maxLength={500} autoComplete="off" />
			</label>
			<label>
				In so many seconds
				<input name="delay" type="number" min={1} defaultValue={5} required />
			</label>
			<button type="submit">Remind</button>
		</Form>
	);
}
//% if "workflows" in features

/** Starts the Workflow, and shows the instance that was started last. */
function Approval({ agent }) {
	return (
		<Form act={({ email }) => agent.call("startWorkflow", [email])}>
			<label>
				E-mail of the approver
				<input name="email" type="email" required />
			</label>
			<button type="submit">Start a Workflow</button>
			<p>{agent.state?.workflowId}</p>
		</Form>
	);
}
//% endif
