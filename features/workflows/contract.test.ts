import { introspectWorkflow } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { MyWorkflow } from "./worker";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const ADA = { email: "ada@example.com", metadata: { plan: "pro" } };

type Instance = { id: string; status: string; output: unknown; error: unknown };

let workflow: Awaited<ReturnType<typeof introspectWorkflow>>;

beforeEach(async () => {
	vi.spyOn(console, "log").mockImplementation(() => {});
	workflow = await introspectWorkflow(env.MY_WORKFLOW);
	await workflow.modifyAll(async (instance) => {
		await instance.disableSleeps();
		await instance.disableRetryDelays();
	});
});

afterEach(async () => {
	await workflow.dispose();
	vi.restoreAllMocks();
});

function ask(path: string, init: RequestInit = {}): Promise<Response> {
	const request = new Request(`https://example.com/workflows${path}`, init);
	for (const [name, value] of Object.entries(OPERATOR)) {
		if (!request.headers.has(name)) {
			request.headers.set(name, value);
		}
	}
	return exports.default.fetch(request);
}

function post(
	path: string,
	body: unknown,
	headers: Record<string, string> = {},
): Promise<Response> {
	return ask(path, {
		method: "POST",
		headers: { "Content-Type": "application/json", ...headers },
		body: JSON.stringify(body),
	});
}

async function start(): Promise<string> {
	return (await (await post("", ADA)).json<Instance>()).id;
}

function decide(id: string, approved: unknown): Promise<Response> {
	return post(`/${id}/approval`, { approved });
}

async function read(id: string): Promise<Instance> {
	return (await ask(`/${id}`)).json<Instance>();
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
	it("answers what GET then shows, without an output so far", async () => {
		const response = await post("", ADA);
		const { id } = await response.clone().json<Instance>();
		expect(await response.json()).toEqual({ id, status: "queued" });
		const status = "running";
		expect(await becomes(id, status)).toEqual({
			id,
			status,
			output: null,
			error: null,
		});
	});

	it("starts another instance for the same body, and for another key", async () => {
		const other = { "Idempotency-Key": "order 8" };
		const bodies = [post("", ADA), post("", ADA), post("", ADA, other)];
		await Promise.all(bodies);
		expect(new Set(await workflow.get()).size).toBe(3);
	});

	it("shows the instance of a key that has ended, whatever the body", async () => {
		const key = { "Idempotency-Key": "order 7" };
		const { id } = await (await post("", ADA, key)).json<Instance>();
		await decide(id, false);
		await becomes(id, "complete");
		const again = await post("", { ...ADA, metadata: {} }, key);
		expect(again.status).toBe(202);
		expect(await again.json()).toEqual({ id, status: "complete" });
		expect(await workflow.get()).toHaveLength(1);
	});

	it.each(["!", "-", '"8e03978e"', "~".repeat(2000)])(
		"takes the key %j",
		async (key) => {
			const headers = { "Idempotency-Key": key };
			const first = await (await post("", ADA, headers)).json<Instance>();
			const again = await (await post("", ADA, headers)).json<Instance>();
			expect(again.id).toBe(first.id);
		},
	);

	it("answers 500 when the instance cannot be started", async () => {
		vi.spyOn(console, "error").mockImplementation(() => {});
		vi.spyOn(env.MY_WORKFLOW, "create").mockRejectedValue(new Error("Down"));
		const headers = { "Idempotency-Key": "order 7" };
		expect((await post("", ADA, headers)).status).toBe(500);
	});

	it.each([
		null,
		{ email: "ada@example.com" },
		{ metadata: {} },
		{ email: `${"a".repeat(250)}@example.com`, metadata: {} },
		{ email: "ada@example.com", metadata: { seats: 3 } },
		{ email: "ada@example.com", metadata: [] },
	])("starts nothing for %j", async (body) => {
		expect((await post("", body)).status).toBe(400);
		expect(await workflow.get()).toEqual([]);
	});
});

describe("a decision", () => {
	it.each(["yes", 1, null])("that is %j is refused", async (approved) => {
		const id = await start();
		expect((await decide(id, approved)).status).toBe(400);
		await decide(id, true);
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

	it("waits while its instance is paused", async () => {
		const id = await start();
		await becomes(id, "running");
		const instance = await env.MY_WORKFLOW.get(id);
		await instance.pause();
		await becomes(id, "paused");
		await instance.resume();
		await decide(id, true);
		const { output } = await becomes(id, "complete");
		expect(output).toMatchObject({ approved: true });
	});

	it("that nobody makes in time is a no", async () => {
		await workflow.modifyAll(async (instance) => {
			await instance.forceEventTimeout({ name: "wait for approval" });
		});
		const { output } = await becomes(await start(), "complete");
		expect(output).toEqual({ ...ADA, approved: false, decidedAt: null });
	});

	it.each([
		[5, "complete"],
		[6, "errored"],
	])("carried out after %i failures is %s", async (times, status) => {
		await workflow.modifyAll(async (instance) => {
			const step = { name: "carry out decision" };
			await instance.mockStepError(step, new Error("Try again"), times);
		});
		const id = await start();
		await decide(id, true);
		await becomes(id, status);
	});

	it("can be withdrawn by terminating the instance", async () => {
		await workflow.dispose();
		workflow = await introspectWorkflow(env.MY_WORKFLOW);
		const carryOut = vi.spyOn(MyWorkflow.prototype, "carryOut");
		const id = await start();
		await becomes(id, "running");
		await decide(id, true);
		await scheduler.wait(500);
		await (await env.MY_WORKFLOW.get(id)).terminate();
		expect(await read(id)).toMatchObject({ status: "terminated" });
		expect(carryOut).not.toHaveBeenCalled();
	});

	it("that cannot be sent is a 500, not a 202", async () => {
		vi.spyOn(console, "error").mockImplementation(() => {});
		const id = await start();
		const instance = await env.MY_WORKFLOW.get(id);
		vi.spyOn(env.MY_WORKFLOW, "get").mockResolvedValue(instance);
		vi.spyOn(instance, "sendEvent").mockRejectedValue(new Error("Not sent"));
		expect((await decide(id, true)).status).toBe(500);
	});
});

describe("own work", () => {
	it("holds up no decision while it asks, and changes none", async () => {
		const isAsked = Promise.withResolvers<void>();
		vi.spyOn(MyWorkflow.prototype, "askForApproval").mockReturnValue(
			isAsked.promise,
		);
		const id = await start();
		expect((await decide(id, true)).status).toBe(202);
		expect((await decide(id, false)).status).toBe(202);
		isAsked.resolve();
		const { output } = await becomes(id, "complete");
		expect(output).toMatchObject({ ...ADA, approved: true });
	});

	it("is repeated with the same instance and decision", async () => {
		const carryOut = vi.spyOn(MyWorkflow.prototype, "carryOut");
		carryOut.mockRejectedValueOnce(new Error("Lost after the work"));
		const id = await start();
		await decide(id, true);
		await becomes(id, "complete");
		const calls = carryOut.mock.calls.map(([event, decision]) => [
			event.instanceId,
			event.payload,
			decision,
		]);
		expect(calls[0]).toMatchObject([id, ADA, { approved: true }]);
		expect(calls).toEqual([calls[0], calls[0]]);
	});

	it("that keeps failing says why, and takes no decision", async () => {
		vi.spyOn(MyWorkflow.prototype, "askForApproval").mockRejectedValue(
			new Error("No such address"),
		);
		const id = await start();
		const { error, output } = await becomes(id, "errored");
		expect(output).toBeNull();
		expect(error).toMatchObject({ message: "No such address" });
		expect((await decide(id, true)).status).toBe(409);
	});
});

it("takes no decision once it is terminated", async () => {
	const id = await start();
	await becomes(id, "running");
	await (await env.MY_WORKFLOW.get(id)).terminate();
	const response = await decide(id, true);
	expect(response.status).toBe(409);
	expect(await response.json()).toMatchObject({
		error: { code: "instance_ended" },
	});
	expect(await read(id)).toMatchObject({ status: "terminated", output: null });
});

describe("an unknown id", () => {
	const unknown = [
		"00000000-0000-4000-8000-000000000000",
		"a b",
		"x".repeat(200),
	];

	it.each(unknown)("%j is 404", async (id) => {
		const path = `/${encodeURIComponent(id)}`;
		for (const response of [
			await ask(path),
			await decide(path.slice(1), true),
		]) {
			expect(response.status).toBe(404);
			expect(await response.json()).toMatchObject({
				error: { code: "no_instance" },
			});
		}
	});
});

it.each(["", "/a/approval"])(
	"takes only small JSON at /workflows%s",
	async (path) => {
		const send = (body: string, type = "application/json") =>
			ask(path, { method: "POST", headers: { "Content-Type": type }, body });
		expect((await send("{}", "text/plain")).status).toBe(415);
		expect((await send(`"${"x".repeat(65_536)}"`)).status).toBe(413);
		expect((await send("{")).status).toBe(400);
		expect((await send("{}")).status).toBe(400);
	},
);

it.each(["", "Bearer wrong", "Bearer ", "Basic dTpw"])(
	"opens nothing to Authorization %j",
	async (Authorization) => {
		const id = await start();
		const headers = { Authorization };
		const responses = [
			await post("", ADA, headers),
			await ask(`/${id}`, { headers }),
			await post(`/${id}/approval`, { approved: true }, headers),
		];
		for (const response of responses) {
			expect(response.status).toBe(401);
			expect(response.headers.get("WWW-Authenticate")).toBe("Bearer");
		}
		expect(await workflow.get()).toHaveLength(1);
		await decide(id, false);
		const { output } = await becomes(id, "complete");
		expect(output).toMatchObject({ approved: false });
	},
);
