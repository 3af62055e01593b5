// A page for agents, in React. `vite build` makes `public/dist/agents.js` of it.

import { useAgent } from "agents/react";
import { Suspense, useState } from "react";
import { createRoot } from "react-dom/client";

type State = { title: string; lastMessageAt: string | null };
type Message = { id: number; role: string; text: string };

/** Sends a request to an agent, with the API token that the page has. */
async function request(method: string, path: string) {
	const field = document.querySelector<HTMLInputElement>("#api-token");
	const headers = { Authorization: `Bearer ${field?.value}` };
	const response = await fetch(`/agents/ai-agent/${path}`, { method, headers });
	const answer = response.status === 204 ? {} : await response.json();
	if (!response.ok) {
		throw new Error(answer.error.message);
	}
	return answer;
}

/** Opens agents by their names, one at a time. */
function Agents() {
	const [{ id, name, refusal }, setOpened] = useState({
		id: 0,
		name: "",
		refusal: "",
	});
	function open(fields: FormData) {
		const name = String(fields.get("name"));
		setOpened({ id: id + 1, name, refusal: "" });
	}
	return (
		<>
			<form action={open}>
				<label>
					Name
					<input
						name="name"
						defaultValue={name || "ada"}
						pattern="[A-Za-z0-9_\-]{1,64}"
						required
					/>
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

type ConversationProps = {
	id: number;
	name: string;
	close: (refusal: string) => void;
};

function Conversation({ id, name, close }: ConversationProps) {
	const [messages, setMessages] = useState<Message[]>([]);
	const [reply, setReply] = useState("");
	const [problem, setProblem] = useState("");

	/** Asks for a ticket, which each connection needs, also after one was lost. */
	async function query() {
		try {
			return await request("POST", `${name}/ticket`);
		} catch (error) {
			close(textOf(error));
			return new Promise(() => {});
		}
	}

	const agent = useAgent<State>({
		agent: "AiAgent",
		name,
		query,
		queryDeps: [id],
		cacheTtl: 2 ** 31 - 1, // A connection lasts until it is lost.
		onStateUpdateError: setProblem,
		onMessage({ data }) {
			const frame = JSON.parse(data);
			if (frame.type === "messages") {
				setMessages((known) => merge(known, frame.messages));
			} else if (frame.type === "cleared") {
				setMessages([]);
			} else if (frame.type === "piece") {
				setReply((before) => before + frame.text);
			} else {
				setReply("");
				setProblem(frame.error?.message ?? "");
			}
		},
	});

	/** Makes the action of a form, which shows what goes wrong. */
	function action(act: (fields: FormData) => unknown) {
		return async (fields: FormData) => {
			setProblem("");
			try {
				await act(fields);
			} catch (error) {
				setProblem(textOf(error));
			}
		};
	}

	const title = agent.state?.title ?? "";
	return (
		<>
			<form
				action={action((fields) => {
					const title = String(fields.get("title"));
					agent.setState({ lastMessageAt: null, ...agent.state, title });
				})}
			>
				<label>
					Title
					<input
						key={title}
						name="title"
						defaultValue={title}
						maxLength={100}
						disabled={!agent.identified}
					/>
				</label>
				<button type="submit">Rename</button>
			</form>
			<div role="log" aria-label="Conversation">
				{messages.map(({ id, role, text }) => (
					<p key={id}>
						<strong>{role}</strong> {text}
					</p>
				))}
			</div>
			<p aria-live="polite">{reply}</p>
			<p role="alert">{problem}</p>
			<form
				action={action((fields) => agent.send(String(fields.get("message"))))}
			>
				<label>
					Message
					<input name="message" required maxLength={8000} />
				</label>
				<button type="submit">Send</button>
			</form>
			<form action={action(() => request("DELETE", name))}>
				<button type="submit">Clear</button>
			</form>
			<form
				action={action((fields) => {
					const seconds = Number(fields.get("seconds"));
					return agent.call("addReminder", [
						{ text: fields.get("text"), seconds },
					]);
				})}
			>
				<label>
					Remind me of
					<input name="text" required maxLength={500} />
				</label>
				<label>
					In so many seconds
					<input
						name="seconds"
						type="number"
						min={1}
						defaultValue={5}
						required
					/>
				</label>
				<button type="submit">Remind</button>
			</form>
		</>
	);
}

/** Adds messages to those that the page has; after a reconnect, all come again. */
function merge(known: Message[], added: Message[]): Message[] {
	const byId = new Map([...known, ...added].map((one) => [one.id, one]));
	return [...byId.values()];
}

function textOf(error: unknown): string {
	return error instanceof Error ? error.message : String(error);
}

const root = document.querySelector("#agent");
if (root) {
	createRoot(root).render(<Agents />);
}
