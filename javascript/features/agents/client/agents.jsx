// A page for agents, in React. `vite build` makes `public/dist/agents.js` of it.

import { useAgent } from "agents/react";
import { Suspense, useState } from "react";
import { createRoot } from "react-dom/client";

/** Gets a ticket for one connection, with the API token that the page has. */
async function newTicket(name) {
	const field = document.querySelector("#api-token");
	const response = await fetch(`/agents/ai-agent/${name}/ticket`, {
		method: "POST",
		headers: { Authorization: `Bearer ${field?.value}` },
	});
	const { ticket, error } = await response.json();
	if (!response.ok) {
		throw new Error(error.message);
	}
	return { ticket };
}

/** Opens agents by their names, one at a time. */
function Agents() {
	const [{ id, name, refusal }, setOpened] = useState({
		id: 0,
		name: "",
		refusal: "",
	});
	function open(fields) {
		const name = String(fields.get("name"));
		setOpened({ id: id + 1, name, refusal: "" });
	}
	return (
		<>
			<form action={open}>
				<label>
					Name
					<input name="name" defaultValue={name || "ada"} required />
				</label>
				<button type="submit">Open</button>
			</form>
			<output className={refusal && "error"}>
				{refusal || (name && `${name} is open.`)}
			</output>
			{name && (
				<Suspense fallback={<p>Connecting …</p>}>
					<Conversation
						key={id}
						id={id}
						name={name}
						close={(refusal) => setOpened({ id, name: "", refusal })}
					/>
				</Suspense>
			)}
		</>
	);
}

/** An agent that is open: its title, its messages and its reminders. */
function Conversation({ id, name, close }) {
	const [messages, setMessages] = useState(new Map());
	const [reply, setReply] = useState("");
	const [problem, setProblem] = useState("");
	const agent = useAgent({
		agent: "AiAgent",
		name,
		queryDeps: [id],
		cacheTtl: 2 ** 31 - 1, // A connection lasts until it is lost.
		query: () =>
			newTicket(name).catch(({ message }) => {
				close(message);
				return new Promise(() => {});
			}),
		onStateUpdateError: setProblem,
		onMessage({ data }) {
			const frame = JSON.parse(data);
			if (frame.type === "messages") {
				const added = frame.messages.map((one) => [one.id, one]);
				// A new connection gets all of them again.
				setMessages((known) => new Map([...known, ...added]));
			} else if (frame.type === "cleared") {
				setMessages(new Map());
			} else if (frame.type === "piece") {
				setReply((before) => before + frame.text);
			} else {
				setReply("");
				setProblem(frame.error?.message ?? "");
			}
		},
	});

	function rename(fields) {
		const title = String(fields.get("title"));
		agent.setState({ lastMessageAt: null, ...agent.state, title });
	}

	function say(fields) {
		agent.send(String(fields.get("message")));
	}

	function remind(fields) {
		const seconds = Number(fields.get("seconds"));
		const reminder = { text: fields.get("text"), seconds };
		return agent
			.call("addReminder", [reminder])
			.then(() => setProblem(""))
			.catch(({ message }) => setProblem(message));
	}

	const title = agent.state?.title ?? "";
	return (
		<>
			<form action={rename}>
				<label>
					Title
					<input
						key={title}
						name="title"
						defaultValue={title}
						disabled={!agent.identified}
					/>
				</label>
				<button type="submit">Rename</button>
			</form>
			<div role="log" aria-label="Conversation">
				{[...messages.values()].map(({ id, role, text }) => (
					<p key={id}>
						<strong>{role}</strong> {text}
					</p>
				))}
				{reply && <p>{reply}</p>}
			</div>
			<p role="alert">{problem}</p>
			<form action={say}>
				<label>
					Message
					<input name="message" required />
				</label>
				<button type="submit">Send</button>
			</form>
			<form action={remind}>
				<label>
					Remind me of
					<input name="text" required />
				</label>
				<label>
					In so many seconds
					<input name="seconds" type="number" defaultValue={5} required />
				</label>
				<button type="submit">Remind</button>
			</form>
		</>
	);
}

const root = document.querySelector("#agent");
if (root) {
	createRoot(root).render(<Agents />);
}
