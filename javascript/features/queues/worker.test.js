import {
	createExecutionContext,
	createMessageBatch,
	getQueueResult,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import worker from "../src/index";

const QUEUE = "{resource_name}-requests";
const send = vi.spyOn(env.REQUEST_QUEUE, "send");
const upstream = vi.spyOn(globalThis, "fetch");
const log = vi.spyOn(console, "error");

beforeEach(() => {
	env.UPSTREAM_API_URL = "https://upstream.example/batches";
	send.mockResolvedValue({});
	upstream.mockImplementation(async () => new Response("taken"));
	log.mockImplementation(() => {});
});

afterEach(() => {
	env.UPSTREAM_API_URL = "";
	vi.resetAllMocks();
});

function post(headers = {}, body = '{"order":7}') {
	return exports.default.fetch(
		new Request("https://example.com/requests", {
			method: "POST",
			headers: {
				Authorization: `Bearer ${env.API_TOKEN}`,
				"Content-Type": "application/json",
				...headers,
			},
			body,
		}),
	);
}

describe("POST /requests", () => {
	it("queues the request, without its credentials", async () => {
		const response = await post({ Cookie: "id=secret" });
		expect(response.status).toBe(202);
		const { requestId } = await response.json();
		const message = send.mock.calls[0]?.[0];
		expect(message).toMatchObject({ requestId, body: { order: 7 } });
		expect(JSON.stringify(message)).not.toMatch(/secret|Bearer/);
	});

	it("takes the Idempotency-Key for the id of the request", async () => {
		const response = await post({ "Idempotency-Key": "order-7" });
		expect(await response.json()).toMatchObject({ requestId: "order-7" });
	});

	it("queues nothing that is not JSON", async () => {
		expect((await post({}, "{")).status).toBe(400);
		expect(send).not.toHaveBeenCalled();
	});

	it("needs the operator's token", async () => {
		expect((await post({ Authorization: "Bearer wrong" })).status).toBe(401);
	});

	it("answers 503 while there is no upstream", async () => {
		env.UPSTREAM_API_URL = "";
		expect((await post()).status).toBe(503);
		expect(send).not.toHaveBeenCalled();
	});
});

describe("the consumer", () => {
	/** Consumes a batch of messages with these ids. */
	async function consume(...ids) {
		const messages = ids.map((id) => ({
			id,
			timestamp: new Date(),
			attempts: 1,
			body: { requestId: id },
		}));
		const batch = createMessageBatch(QUEUE, messages);
		const ctx = createExecutionContext();
		await worker.queue(batch, env, ctx);
		const { explicitAcks, retryMessages } = await getQueueResult(batch, ctx);
		const retried = retryMessages.map(({ msgId }) => msgId);
		return { taken: explicitAcks, retried };
	}

	it("posts a batch once, with the key, and acknowledges it", async () => {
		expect(await consume("a", "b")).toEqual({ taken: ["a", "b"], retried: [] });
		expect(upstream).toHaveBeenCalledTimes(1);
		const sent = new Request(...(upstream.mock.calls[0] ?? [""]));
		const key = `Bearer ${env.UPSTREAM_API_KEY}`;
		expect(sent.headers.get("Authorization")).toBe(key);
		const requests = [{ requestId: "a" }, { requestId: "b" }];
		expect(await sent.json()).toMatchObject({ batchSize: 2, requests });
	});

	it("retries the batch when the upstream fails", async () => {
		upstream.mockResolvedValue(new Response(null, { status: 503 }));
		expect(await consume("a", "b")).toEqual({ taken: [], retried: ["a", "b"] });
		expect(upstream).toHaveBeenCalledTimes(1);
		expect(log.mock.calls[0]?.[0]).toContain('"requestIds":["a","b"]');
	});

	it("lets a bad message take no other along", async () => {
		upstream.mockImplementation(async (...call) => {
			const isBad = (await new Request(...call).text()).includes("bad");
			return new Response(null, { status: isBad ? 400 : 204 });
		});
		const result = { taken: ["a", "b"], retried: ["bad"] };
		expect(await consume("a", "bad", "b")).toEqual(result);
	});
});
