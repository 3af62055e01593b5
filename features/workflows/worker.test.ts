import { introspectWorkflow } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import type { MockInstance } from "vitest";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const JSON_TYPE = { "Content-Type": "application/json" };
const ADA = { email: "ada@example.com", metadata: { plan: "pro" } };

type Instance = {
	id: string;
	status: string;
	output: unknown;
	error: { name: string; message: string } | null;
};

type Refusal = {
	error: { message: string; issues: { path: string; message: string }[] };
};

let workflow: Awaited<ReturnType<typeof introspectWorkflow>>;
let log: MockInstance<typeof console.log>;

beforeEach(async () => {
	log = vi.spyOn(console, "log").mockImplementation(() => {});
	workflow = await introspectWorkflow(env.MY_WORKFLOW);
	await workflow.modifyAll(async (instance) => {
		await instance.disableSleeps();
		await instance.disableRetryDelays();
	});
});

afterEach(async () => {
	vi.restoreAllMocks();
	await workflow.dispose();
});

/** Lets the sleeps and delays of what starts from here on take their time. */
async function slowDown(): Promise<void> {
	await workflow.dispose();
	workflow = await introspectWorkflow(env.MY_WORKFLOW);
}

function request(path: string, init: RequestInit = {}): Promise<Response> {
	return exports.default.fetch(new Request(`https://example.com${path}`, init));
}

function post(
	path: string,
	body: unknown,
	headers: Record<string, string> = OPERATOR,
): Promise<Response> {
	return request(path, {
		method: "POST",
		headers: { ...JSON_TYPE, ...headers },
		body: JSON.stringify(body),
	});
}

async function start(): Promise<string> {
	const response = await post("/workflows", ADA);
	return (await response.json<Instance>()).id;
}

function approve(id: string, approved: unknown): Promise<Response> {
	return post(`/workflows/${id}/approval`, { approved });
}

async function read(id: string): Promise<Instance> {
	const response = await request(`/workflows/${id}`, { headers: OPERATOR });
	return response.json<Instance>();
}

function becomes(id: string, status: string): Promise<Instance> {
	return vi.waitFor(
		async () => {
			const instance = await read(id);
			expect(instance.status).toBe(status);
			return instance;
		},
		{ timeout: 8000, interval: 50 },
	);
}

describe("POST /workflows", () => {
	it("starts an instance that GET shows, without an output so far", async () => {
		const response = await post("/workflows", ADA);
		expect(response.status).toBe(202);
		const started = await response.json<Instance>();
		expect(started).toEqual({
			id: expect.stringMatching(/^[0-9a-f-]{36}$/),
			status: "queued",
		});

		const shown = await becomes(started.id, "running");
		expect(shown).toEqual({
			...started,
			status: "running",
			output: null,
			error: null,
		});
	});

	it("starts another instance for the same body", async () => {
		expect(await start()).not.toBe(await start());
	});

	it("starts one instance per Idempotency-Key", async () => {
		const key = { ...OPERATOR, "Idempotency-Key": "order 7" };
		const first = await post("/workflows", ADA, key);
		const { id } = await first.json<Instance>();
		await approve(id, false);
		await becomes(id, "complete");
		const other = { ...ADA, email: "bob@example.com" };
		const again = await post("/workflows", other, key);
		expect(again.status).toBe(202);
		expect(await again.json()).toEqual({ id, status: "complete" });
		expect(await workflow.get()).toHaveLength(1);

		const next = { ...OPERATOR, "Idempotency-Key": "order 8" };
		const another = await post("/workflows", ADA, next);
		expect((await another.json<Instance>()).id).not.toBe(id);
	});

	it("finds what an earlier version has started with the same key", async () => {
		const headers = { ...OPERATOR, "Idempotency-Key": "order-8" };
		const response = await post("/workflows", ADA, headers);
		expect((await response.json<Instance>()).id).toBe(
			"0006db9c-52c1-8f71-8104-e9105c6716dc",
		);
	});

	it.each(["!", "~".repeat(128)])("takes the key %j", async (key) => {
		const headers = { ...OPERATOR, "Idempotency-Key": key };
		expect((await post("/workflows", ADA, headers)).status).toBe(202);
	});

	it.each(["", "a".repeat(129), "gr\u00f6sse", "a\tb"])(
		"starts nothing for the key %j",
		async (key) => {
			const headers = { ...OPERATOR, "Idempotency-Key": key };
			const response = await post("/workflows", ADA, headers);
			expect(response.status).toBe(400);
			expect(await response.json()).toMatchObject({
				error: { code: "invalid_idempotency_key" },
			});
			expect(await workflow.get()).toEqual([]);
		},
	);

	it("answers 500 when the instance cannot be started", async () => {
		vi.spyOn(console, "error").mockImplementation(() => {});
		vi.spyOn(env.MY_WORKFLOW, "create").mockRejectedValue(new Error("Down"));
		const headers = { ...OPERATOR, "Idempotency-Key": "order 7" };
		expect((await post("/workflows", ADA, headers)).status).toBe(500);
	});

	const badBodies = [
		{},
		{ email: "ada@example.com" },
		{ metadata: {} },
		{ email: "ada", metadata: {} },
		{ email: `${"a".repeat(250)}@example.com`, metadata: {} },
		{ email: "ada@example.com", metadata: { seats: 3 } },
		{ email: "ada@example.com", metadata: [] },
		{ email: "ada@example.com", metadata: {}, more: 1 },
	];

	it.each(badBodies)("starts nothing for %j", async (body) => {
		expect((await post("/workflows", body)).status).toBe(400);
		expect(await workflow.get()).toEqual([]);
	});

	it("tells 20 of the mistakes in a body, and repeats nothing at length", async () => {
		const keys = Array.from({ length: 21 }, (_, i) => `${i}`.padEnd(300, "k"));
		const metadata = Object.fromEntries(keys.map((key) => [key, 0]));
		const response = await post("/workflows", { ...ADA, metadata });
		const { error } = await response.json<Refusal>();
		expect(error.message).not.toBe("");
		expect(error.issues).toEqual(
			keys.slice(0, 20).map((key) => ({
				path: `metadata.${key}`.slice(0, 200),
				message: expect.stringContaining("string"),
			})),
		);
		const unknown = await post("/workflows", { ...ADA, ["k".repeat(300)]: 1 });
		const [issue] = (await unknown.json<Refusal>()).error.issues;
		expect(issue?.message).toHaveLength(200);
	});
});

describe("a decision", () => {
	it.each([true, false])(
		"approved: %j becomes the output",
		async (approved) => {
			const id = await start();
			const response = await approve(id, approved);
			expect(response.status).toBe(202);
			expect(await response.json()).toEqual({ id, status: expect.any(String) });

			const { output } = await becomes(id, "complete");
			expect(output).toEqual({
				...ADA,
				approved,
				decidedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
			});
		},
	);

	it("that nobody makes in time is a no", async () => {
		await workflow.modifyAll(async (instance) => {
			await instance.forceEventTimeout({ name: "wait for approval" });
		});
		const { output } = await becomes(await start(), "complete");
		expect(output).toEqual({ ...ADA, approved: false, decidedAt: null });
	});

	it("waits while its instance is paused", async () => {
		const id = await start();
		await vi.waitFor(() => expect(log).toHaveBeenCalled());
		const instance = await env.MY_WORKFLOW.get(id);
		await instance.pause();
		await becomes(id, "paused");
		await instance.resume();
		await approve(id, true);
		const { output } = await becomes(id, "complete");
		expect(output).toMatchObject({ approved: true });
	});

	it.each(["yes", 1, null])("that is %j is refused", async (approved) => {
		const id = await start();
		expect((await approve(id, approved)).status).toBe(400);
		await approve(id, true);
		const { output } = await becomes(id, "complete");
		expect(output).toMatchObject({ approved: true });
	});

	it.each([{ approved: "yes" }, {}, null])(
		"that no route has checked is a no when it is %j",
		async (payload) => {
			const id = await start();
			const instance = await env.MY_WORKFLOW.get(id);
			await instance.sendEvent({ type: "approval", payload });
			const { output } = await becomes(id, "complete");
			expect(output).toMatchObject({ approved: false });
		},
	);
});

describe("two decisions", () => {
	it.each([true, false])("the first of which is %j: it wins", async (first) => {
		const id = await start();
		expect((await approve(id, first)).status).toBe(202);
		// It may have ended by then.
		expect([202, 409]).toContain((await approve(id, !first)).status);
		const { output } = await becomes(id, "complete");
		expect(output).toMatchObject({ approved: first });
	});
});

describe("an instance that has ended", () => {
	it("complete takes no decision", async () => {
		const id = await start();
		await approve(id, true);
		const before = await becomes(id, "complete");
		expect((await approve(id, false)).status).toBe(409);
		expect(await read(id)).toEqual(before);
	});

	it("terminated takes no decision", async () => {
		const id = await start();
		await becomes(id, "running");
		await (await env.MY_WORKFLOW.get(id)).terminate();
		expect((await approve(id, true)).status).toBe(409);
		expect(await read(id)).toMatchObject({
			id,
			status: "terminated",
			output: null,
		});
	});

	it("errored takes no decision, and tells why", async () => {
		const { id } = await env.MY_WORKFLOW.create({
			params: { ...ADA, email: "ada" },
		});
		expect(await becomes(id, "errored")).toMatchObject({
			output: null,
			error: {
				name: expect.any(String),
				message: expect.any(String),
			},
		});
		expect((await approve(id, true)).status).toBe(409);
	});

	it("while a decision was on its way is a conflict, not a failure", async () => {
		const id = await start();
		const instance = await env.MY_WORKFLOW.get(id);
		vi.spyOn(env.MY_WORKFLOW, "get").mockResolvedValue(instance);
		vi.spyOn(instance, "sendEvent").mockImplementation(async () => {
			await instance.terminate();
			throw new Error("The instance takes no events");
		});
		expect((await approve(id, true)).status).toBe(409);
	});
});

it("answers 500, not 202, when a decision cannot be sent", async () => {
	vi.spyOn(console, "error").mockImplementation(() => {});
	const id = await start();
	const instance = await env.MY_WORKFLOW.get(id);
	vi.spyOn(env.MY_WORKFLOW, "get").mockResolvedValue(instance);
	vi.spyOn(instance, "sendEvent").mockRejectedValue(new Error("Not sent"));
	expect((await approve(id, true)).status).toBe(500);
});

describe("a step", () => {
	it.each([2, 5])("that fails %i times passes the next", async (times) => {
		await workflow.modifyAll(async (instance) => {
			const step = { name: "carry out decision" };
			await instance.mockStepError(step, new Error("Try again"), times);
		});
		const id = await start();
		await approve(id, true);
		const { output } = await becomes(id, "complete");
		expect(output).toMatchObject({ approved: true });
	});

	it("that fails six times fails its instance", async () => {
		await workflow.modifyAll(async (instance) => {
			const step = { name: "carry out decision" };
			await instance.mockStepError(step, new Error("Try again"), 6);
		});
		const id = await start();
		await approve(id, true);
		expect(await becomes(id, "errored")).toMatchObject({ output: null });
	});

	it("that is repeated after its work was done tells the same again", async () => {
		const told: string[] = [];
		log.mockImplementation((line: string) => {
			told.push(line);
			if (told.filter((other) => other === line).length === 1) {
				throw new Error("Lost after the work");
			}
		});
		const id = await start();
		await approve(id, true);
		const { output } = await becomes(id, "complete");
		expect(output).toMatchObject({ approved: true });
		const messages = told.map((line) => JSON.parse(line));
		const asked = { message: "Approval wanted", instance: id };
		const decided = { message: "Decision made", instance: id };
		expect(messages).toMatchObject([asked, asked, decided, decided]);
		expect(told[2]).toBe(told[3]);
	});

	it("is not repeated when the instance was started with bad params", async () => {
		await slowDown();
		const { id } = await env.MY_WORKFLOW.create({
			params: { ...ADA, email: "ada" },
		});
		// A repeat would come after ten seconds only.
		await becomes(id, "errored");
		expect(log).not.toHaveBeenCalled();
	});
});

describe("an unknown id", () => {
	const ids = ["00000000-0000-4000-8000-000000000000", "a b", "a".repeat(200)];

	it.each(ids)("%j is 404", async (id) => {
		const path = `/workflows/${encodeURIComponent(id)}`;
		const responses = [
			await request(path, { headers: OPERATOR }),
			await post(`${path}/approval`, { approved: true }),
		];
		for (const response of responses) {
			expect(response.status).toBe(404);
			expect(await response.json()).toMatchObject({
				error: { code: "no_instance" },
			});
		}
	});

	it("is 404 in the words of production too", async () => {
		vi.spyOn(env.MY_WORKFLOW, "get").mockRejectedValue(
			new Error("(instance.not_found) Instance not found"),
		);
		const response = await request("/workflows/a", { headers: OPERATOR });
		expect(response.status).toBe(404);
	});
});

it("answers 500, not 404, when Workflows fail", async () => {
	const log = vi.spyOn(console, "error").mockImplementation(() => {});
	vi.spyOn(env.MY_WORKFLOW, "get").mockRejectedValue(
		new Error("Workflows are down"),
	);
	const responses = [
		await request("/workflows/a", { headers: OPERATOR }),
		await approve("a", true),
	];
	for (const response of responses) {
		expect(response.status).toBe(500);
		expect(await response.text()).not.toContain("are down");
	}
	expect(log).toHaveBeenCalledTimes(2);
});

describe("bodies", () => {
	const paths = ["/workflows", "/workflows/a/approval"];

	it.each(paths)("of %s must be small and JSON", async (path) => {
		const send = (body: string, headers: Record<string, string>) =>
			request(path, { method: "POST", headers, body });
		const json = { ...OPERATOR, ...JSON_TYPE };
		const text = { ...OPERATOR, "Content-Type": "text/plain" };
		expect((await send("{}", text)).status).toBe(415);
		expect((await send(`"${"x".repeat(65_536)}"`, json)).status).toBe(413);
		expect((await send("{", json)).status).toBe(400);
		expect((await send("{}", json)).status).toBe(400);
	});
});

describe("without the operator's token", () => {
	const tokens = ["", "Bearer wrong", "Bearer ", "Basic dTpw"];

	it.each(tokens)("Authorization %j opens nothing", async (Authorization) => {
		const id = await start();
		const responses = [
			await post("/workflows", ADA, { Authorization }),
			await request(`/workflows/${id}`, { headers: { Authorization } }),
			await post(
				`/workflows/${id}/approval`,
				{ approved: true },
				{ Authorization },
			),
		];
		for (const response of responses) {
			expect(response.status).toBe(401);
			expect(response.headers.get("WWW-Authenticate")).toBe("Bearer");
		}
		expect(await workflow.get()).toHaveLength(1);
		await approve(id, false);
		const { output } = await becomes(id, "complete");
		expect(output).toMatchObject({ approved: false });
	});
});
