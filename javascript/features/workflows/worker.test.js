import { introspectWorkflow } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const ADA = { email: "ada@example.com", metadata: { plan: "pro" } };

let workflow;

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

function request(method, path, body, headers = {}) {
	return exports.default.fetch(
		new Request(`https://example.com/workflows${path}`, {
			method,
			headers: { "Content-Type": "application/json", ...OPERATOR, ...headers },
			...(body && { body: JSON.stringify(body) }),
		}),
	);
}

async function start(headers) {
	const response = await request("POST", "", ADA, headers);
	expect(response.status).toBe(202);
	return (await response.json()).id;
}

function decide(id, approved) {
	return request("POST", `/${id}/approval`, { approved });
}

/** Waits until an instance has a status. */
function becomes(id, status) {
	return vi.waitFor(
		async () => {
			const response = await request("GET", `/${id}`);
			const instance = await response.json();
			expect(instance.status).toBe(status);
			return instance;
		},
		{ timeout: 8000, interval: 50 },
	);
}

it.each([true, false])(
	"ends with the first decision, approved: %j",
	async (approved) => {
		const id = await start();
		expect((await decide(id, approved)).status).toBe(202);
		// It may have ended by then.
		expect([202, 409]).toContain((await decide(id, !approved)).status);

		const { output } = await becomes(id, "complete");
		const decidedAt = expect.stringMatching(/^\d{4}-.*Z$/);
		expect(output).toEqual({ ...ADA, approved, decidedAt });
		expect((await decide(id, true)).status).toBe(409);
	},
);

it("finds the instance that a key has started", async () => {
	const key = { "Idempotency-Key": "order 7" };
	const id = await start(key);
	vi.spyOn(env.MY_WORKFLOW, "create").mockRejectedValue(
		new Error("(instance.already_exists) Instance already exists"),
	);
	expect(await start(key)).toBe(id);
	expect(await workflow.get()).toHaveLength(1);
});

it.each([{}, { ...ADA, email: "ada" }, { ...ADA, more: 1 }])(
	"starts nothing for %j",
	async (body) => {
		expect((await request("POST", "", body)).status).toBe(400);
		expect(await workflow.get()).toEqual([]);
	},
);

it("takes nothing but a boolean for a decision", async () => {
	const id = await start();
	expect((await decide(id, "yes")).status).toBe(400);
	expect(await becomes(id, "running")).toMatchObject({ output: null });
});

it.each([
	[404, "(instance.not_found) Instance not found"],
	[500, "Workflows are down"],
])("answers %i to the error %s", async (status, message) => {
	vi.spyOn(console, "error").mockImplementation(() => {});
	vi.spyOn(env.MY_WORKFLOW, "get").mockRejectedValue(new Error(message));
	expect((await request("GET", "/none")).status).toBe(status);
	expect((await decide("none", true)).status).toBe(status);
});

it("needs the operator's token", async () => {
	const wrong = { Authorization: "Bearer wrong" };
	expect((await request("POST", "", ADA, wrong)).status).toBe(401);
	expect((await request("GET", "/none", undefined, wrong)).status).toBe(401);
});
