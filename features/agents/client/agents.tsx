// A client of the agents, for any page that has an element `#agent`. Its
// attributes `data-agent` and `data-name` name another class, and who to begin with.

import { useAgent } from "agents/react";
import {
	type ComponentType,
	type ReactNode,
	type SubmitEvent,
	Suspense,
	useRef,
	useState,
} from "react";
import { createRoot } from "react-dom/client";
import { find, Refusal, request } from "/app.js";

const MESSAGES_SHOWN = 100;
const RETRY_MS = 2000;
const LONGEST_RETRY_MS = 60_000;
/** As long as a timer can be: a connection lasts until it is lost. */
const FOREVER_MS = 2 ** 31 - 1;

/** What an agent shows to everybody at once. */
type State = {
	title: string;
	//% if "workflows" in features
	workflowId: string | null;
	//% endif
	// Your state
};

type Message = { id: number; role: string; text: string };

/** What a control gets: the connection to the agent, and the conversation. */
type ControlProps = {
	agent: ReturnType<typeof useAgent<State>>;
	messages: Message[];
};

/** The controls of an agent, from top to bottom. */
const CONTROLS: ComponentType<ControlProps>[] = [
	Title,
	Messages,
	Chat,
	RemindMe,
	//% if "workflows" in features
	Approval,
	//% endif
	// Your controls
];

const ROOT = find("#agent", HTMLElement);
const AGENT = ROOT.getAttribute("data-agent") ?? "AiAgent";
const NAME = ROOT.getAttribute("data-name") ?? "ada";
const PATH = `/agents/${AGENT.replace(/\B[A-Z]/g, "-$&").toLowerCase()}`;

createRoot(ROOT).render(<Agents />);

/** A conversation that is open; `query` gets a ticket for each connection. */
type Opened = {
	id: number;
	name: string;
	query: () => Promise<{ ticket: string }>;
};

/** Opens conversations by their names, one at a time. */
function Agents() {
	const [opened, setOpened] = useState<Opened | null>(null);
	const [refusal, setRefusal] = useState("");
	/** The id of the conversation that was opened last. */
	const newest = useRef(0);

	async function open(event: SubmitEvent<HTMLFormElement>) {
		event.preventDefault();
		const name = String(new FormData(event.currentTarget).get("name"));
		try {
			// Gives the reason, which a refused WebSocket can't.
			await request("GET", `${PATH}/${name}`);
			newest.current += 1;
			const id = newest.current;
			const isWanted = () => id === newest.current;
			setOpened({ id, name, query: () => newTicket(name, isWanted, close) });
			setRefusal("");
		} catch (error) {
			setRefusal(messageOf(error));
		}
	}

	function close(reason: string) {
		setOpened(null);
		setRefusal(reason);
	}

	return (
		<>
			<form onSubmit={open}>
				<label>
					Name
					<input
						name="name"
						defaultValue={NAME}
						required
						pattern="[A-Za-z0-9_\-]{1,64}"
						title="1 to 64 letters, digits, _ or -"
					/>
				</label>
				<button type="submit">Open</button>
			</form>
			<output className={refusal && "error"}>
				{refusal || (opened && `${opened.name} is open.`)}
			</output>
			{opened && (
				<Suspense fallback={<p>Connecting …</p>}>
					<Conversation key={opened.id} {...opened} />
				</Suspense>
			)}
		</>
	);
}

/**
 * Gets a ticket. Goes on trying while the Worker is away, less and less often,
 * but not once it refuses: then it closes the conversation, and says why.
 */
async function newTicket(
	name: string,
	isWanted: () => boolean,
	close: (reason: string) => void,
): Promise<{ ticket: string }> {
	let ms = RETRY_MS;
	while (isWanted()) {
		try {
			return await request("POST", `${PATH}/${name}/ticket`);
		} catch (error) {
			const status = error instanceof Refusal ? error.status : 500;
			if (status < 500 && status !== 429) {
				close(messageOf(error));
				break;
			}
			await new Promise((resolve) => setTimeout(resolve, ms));
			ms = Math.min(ms * 2, LONGEST_RETRY_MS);
		}
	}
	// Nobody needs it any more.
	return new Promise(() => {});
}

/** What an error says to the user; an agent's says `code: message`. */
function messageOf(error: unknown): string {
	return error instanceof Error ? error.message.replace(/^\w+: /, "") : "";
}

/** One agent, as long as it is open. */
function Conversation({ id, name, query }: Opened) {
	const [messages, setMessages] = useState<Message[]>([]);
	const agent = useAgent<State>({
		agent: AGENT,
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
function merge(known: Message[], added: Message[]): Message[] {
	const byId = new Map([...known, ...added].map((one) => [one.id, one]));
	return [...byId.values()].sort((a, b) => a.id - b.id).slice(-MESSAGES_SHOWN);
}

/** The title, which any page may change for all of them. */
function Title({ agent }: ControlProps) {
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

function Messages({ messages }: ControlProps) {
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

type Fields = Record<string, string>;

type FormProps = {
	act: (fields: Fields) => Promise<unknown>;
	children: ReactNode;
};

/** A form that acts with its fields and the pressed button, or shows what went wrong. */
function Form({ act, children }: FormProps) {
	const [error, setError] = useState("");
	async function submit(event: SubmitEvent<HTMLFormElement>) {
		event.preventDefault();
		const form = event.currentTarget;
		const fields = [...new FormData(form, event.nativeEvent.submitter)];
		const texts = fields.map(([name, value]) => [name, String(value)]);
		setError("");
		try {
			await act(Object.fromEntries(texts));
			form.reset();
		} catch (error) {
			setError(messageOf(error));
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
function Chat({ agent }: ControlProps) {
	const [reply, setReply] = useState("");
	const [note, setNote] = useState("");
	async function send({ message, clear }: Fields) {
		setNote("");
		if (clear) {
			await agent.call("clear");
			return;
		}
		const onChunk = (piece: unknown) => setReply((before) => before + piece);
		try {
			const end = await agent.call<{ truncated: boolean } | undefined>(
				"chat",
				[message],
				{ stream: { onChunk } },
			);
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

function RemindMe({ agent }: ControlProps) {
	function add({ text, delay }: Fields) {
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
function Approval({ agent }: ControlProps) {
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
