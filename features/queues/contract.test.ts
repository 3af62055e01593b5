import {
	createExecutionContext,
	createMessageBatch,
	getQueueResult,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import {
	afterAll,
	afterEach,
	beforeEach,
	describe,
	expect,
	it,
	vi,
} from "vitest";
import worker from "../src/index";
import { queueRequest } from "./worker";

const QUEUE = "{resource_name}-requests";
const UPSTREAM = "https://upstream.example/batches";
const TIME = expect.stringMatching(/^\d{4}-.*T.*Z$/);

const send = vi.spyOn(env.REQUEST_QUEUE, "send");
const upstream = vi.spyOn(globalThis, "fetch");
const log = vi.spyOn(console, "error");

beforeEach(() => {
	env.UPSTREAM_API_URL = UPSTREAM;
	env.UPSTREAM_API_KEY = "key-of-the-upstream";
	send.mockResolvedValue({} as QueueSendResponse);
	upstream.mockImplementation(async () => new Response("taken"));
	log.mockImplementation(() => {});
});

afterEach(() => {
	env.UPSTREAM_API_URL = "";
	vi.resetAllMocks();
});

afterAll(() => {
	vi.restoreAllMocks();
});

function post(
	body: string,
	headers: Record<string, string> = {},
): Promise<Response> {
	return exports.default.fetch(
		new Request("https://example.com/requests?secret=query", {
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
	it("queues these parts of a request and no others", async () => {
		const response = await post('{"order":7}', {
			"User-Agent": "shop/1.0",
			Cookie: "id=secret",
			"X-Api-Key": "secret",
		});
		const requestId = response.headers.get("X-Request-Id");
		const message = "Request queued";
		expect(await response.json()).toEqual({ message, requestId });
		expect(send).toHaveBeenCalledExactlyOnceWith({
			requestId,
			timestamp: TIME,
			method: "POST",
			path: "/requests",
			headers: { "content-type": "application/json", "user-agent": "shop/1.0" },
			body: { order: 7 },
		});
	});

	it.each(["null", "0", '""', "[]", "{}", '{"a":[{"b":null}]}'])(
		"takes the body %s",
		async (body) => {
			expect((await post(body)).status).toBe(202);
			expect(send.mock.calls[0]?.[0]).toMatchObject({ body: JSON.parse(body) });
		},
	);

	it.each([
		[415, "another type", "{}", { "Content-Type": "text/plain" }],
		[413, "over 64 KiB", JSON.stringify("x".repeat(65_536)), {}],
		[400, "nothing at all", "", {}],
		[401, "no token", "{}", { Authorization: "Basic dTpw" }],
	])("answers %i to %s", async (status, _, body, headers) => {
		expect((await post(body, headers)).status).toBe(status);
		expect(send).not.toHaveBeenCalled();
	});

	it.each([
		["UPSTREAM_API_URL", ""],
		["UPSTREAM_API_URL", "upstream.example"],
		["UPSTREAM_API_URL", "localhost:3000/in"],
		["UPSTREAM_API_URL", "ftp://a.example/"],
		["UPSTREAM_API_KEY", ""],
	] as const)("answers 503 while %s is %j", async (name, value) => {
		env[name] = value;
		const response = await post("{}");
		expect(response.status).toBe(503);
		expect(await response.json()).toEqual({
			error: {
				code: "upstream_not_configured",
				message: expect.stringContaining(name),
			},
		});
		expect(send).not.toHaveBeenCalled();
	});

	it("takes an upstream without TLS", async () => {
		env.UPSTREAM_API_URL = "http://upstream.example";
		expect((await post("{}")).status).toBe(202);
	});

	it.each(["order 7", '"8e03978e"', "k".repeat(1000)])(
		"queues the same id for the key %j",
		async (key) => {
			for (const body of ["1", "2"]) {
				const response = await post(body, { "Idempotency-Key": key });
				expect(await response.json()).toMatchObject({ requestId: key });
			}
			const message = { requestId: key };
			expect(send.mock.calls).toMatchObject([[message], [message]]);
		},
	);

	it("promises nothing when the queue does not take the message", async () => {
		send.mockRejectedValue(new Error("Too Many Requests"));
		expect((await post("{}")).status).toBe(500);
	});
});

it("queues for the user's own code", async () => {
	const id = await queueRequest(env, { path: "/orders", body: { order: 7 } });
	expect(send).toHaveBeenCalledExactlyOnceWith({
		requestId: id,
		timestamp: TIME,
		method: "POST",
		path: "/orders",
		headers: { "content-type": "application/json" },
		body: { order: 7 },
	});
	expect(await queueRequest(env, { body: 1 })).not.toBe(id);
});

function request(requestId: string) {
	return {
		requestId,
		timestamp: "2026-11-22T10:00:00.000Z",
		method: "POST",
		path: "/requests",
		headers: { "content-type": "application/json" },
		body: { order: 7 },
	};
}

/** A batch of messages whose ids are their places. */
function batchOf(bodies: unknown[], queue = QUEUE) {
	const messages = bodies.map((body, index) => ({
		id: `${index}`,
		timestamp: new Date(),
		attempts: 1,
		body,
	}));
	return createMessageBatch<unknown>(queue, messages);
}

async function consume(...bodies: unknown[]) {
	const batch = batchOf(bodies);
	const ctx = createExecutionContext();
	await worker.queue(batch, env, ctx);
	const result = await getQueueResult(batch, ctx);
	expect(result.ackAll || result.retryBatch.retry).toBe(false);
	// None has a delay of its own: each comes again after `retry_delay`.
	const retried = result.retryMessages;
	expect(retried).toEqual(retried.map(({ msgId }) => ({ msgId })));
	return { taken: result.explicitAcks, retried: retried.map((m) => m.msgId) };
}

/** The posts that the upstream was sent. */
function posts() {
	return Promise.all(
		upstream.mock.calls.map((call) =>
			new Request(...call).json<{ batchSize: number; requests: unknown[] }>(),
		),
	);
}

describe("the consumer", () => {
	it("posts this to the upstream", async () => {
		await consume(request("a"), request("b"));
		const sent = new Request(...(upstream.mock.calls[0] ?? [""]));
		expect(sent.url).toBe(UPSTREAM);
		expect(sent.method).toBe("POST");
		expect(Object.fromEntries(sent.headers)).toEqual({
			authorization: "Bearer key-of-the-upstream",
			"content-type": "application/json",
		});
		const requests = [request("a"), request("b")];
		expect(await posts()).toEqual([
			{ timestamp: TIME, batchSize: 2, requests },
		]);
		expect(log).not.toHaveBeenCalled();
	});

	it.each([200, 204, 299])("acknowledges at %i", async (status) => {
		upstream.mockImplementation(async () => new Response(null, { status }));
		expect(await consume(request("a"))).toEqual({ taken: ["0"], retried: [] });
	});

	it.each([302, 399, 408, 429, 500, 599])(
		"retries the batch after %i, and logs it without bodies",
		async (status) => {
			upstream.mockImplementation(
				async () => new Response(status === 302 ? null : "secret", { status }),
			);
			const secret = { ...request("b"), body: "secret" };
			const result = await consume(request("a"), secret);
			expect(result).toEqual({ taken: [], retried: ["0", "1"] });
			expect(upstream).toHaveBeenCalledTimes(1);
			expect(log).toHaveBeenCalledTimes(1);
			const line = log.mock.calls[0]?.[0];
			expect(JSON.parse(line)).toMatchObject({
				message: "Batch not delivered",
				requestIds: ["a", "b"],
				error: expect.stringContaining(`${status}`),
			});
			expect(line).not.toContain("secret");
		},
	);

	it("follows no redirect, and reads no answer", async () => {
		const cancel = vi.fn();
		upstream.mockImplementation(
			async () => new Response(new ReadableStream({ cancel })),
		);
		await consume(request("a"));
		expect(upstream.mock.calls[0]?.[1]?.redirect).toBe("manual");
		expect(cancel).toHaveBeenCalledTimes(1);
	});

	it("retries the batch when the upstream cannot be reached", async () => {
		upstream.mockRejectedValue(new TypeError("Network connection lost."));
		const result = await consume(request("a"), request("b"));
		expect(result).toEqual({ taken: [], retried: ["0", "1"] });
		expect(upstream).toHaveBeenCalledTimes(1);
		expect(log.mock.calls[0]?.[0]).toContain("Network connection lost.");
		expect(log.mock.calls[0]?.[0]).not.toContain(env.UPSTREAM_API_KEY);
	});

	it.each(["UPSTREAM_API_URL", "UPSTREAM_API_KEY"] as const)(
		"retries the batch when %s has gone meanwhile",
		async (name) => {
			env[name] = "";
			expect(await consume(request("a"))).toEqual({
				taken: [],
				retried: ["0"],
			});
			expect(upstream).not.toHaveBeenCalled();
		},
	);

	it.each([400, 401, 407, 409, 413, 428, 430, 499])(
		"posts the messages of a batch one by one after %i",
		async (status) => {
			upstream.mockImplementation(async (...call) => {
				const isBad = (await new Request(...call).text()).includes("bad");
				return new Response("answer", { status: isBad ? status : 200 });
			});
			const messages = [request("a"), request("bad"), null, request("b")];
			const result = await consume(...messages);
			expect(result).toEqual({ taken: ["0", "2", "3"], retried: ["1"] });
			const [first, ...others] = await posts();
			expect(first).toMatchObject({ batchSize: 4, requests: messages });
			expect(others).toMatchObject(
				messages.map((message) => ({ batchSize: 1, requests: [message] })),
			);
		},
	);

	it("posts a message that was alone in its batch no second time", async () => {
		upstream.mockImplementation(async () => new Response("", { status: 400 }));
		expect(await consume(request("a"))).toEqual({ taken: [], retried: ["0"] });
		expect(upstream).toHaveBeenCalledTimes(1);
	});

	it("retries those for which the upstream fails after a refusal", async () => {
		const statuses = [400, 200, 503, 200];
		upstream.mockImplementation(
			async () => new Response("answer", { status: statuses.shift() ?? 500 }),
		);
		const result = await consume(...["a", "b", "c"].map(request));
		expect(result).toEqual({ taken: ["0", "2"], retried: ["1"] });
	});
});

it("refuses a batch of a queue that has no entry, by name", async () => {
	const batch = batchOf([1], "mine");
	const consumed = worker.queue(batch, env, createExecutionContext());
	await expect(consumed).rejects.toThrow('"mine"');
});

it("takes requests from the client to the upstream", async () => {
	send.mockRestore();
	// As many as a batch holds, so that it does not wait for more.
	const ids = await Promise.all(
		Array.from({ length: 10 }, async () => {
			const response = await post('{"order":7}');
			return (await response.json<{ requestId: string }>()).requestId;
		}),
	);
	await vi.waitFor(
		async () => {
			const requests = (await posts()).flatMap((sent) => sent.requests);
			expect(requests).toHaveLength(10);
			expect(requests).toEqual(
				expect.arrayContaining(
					ids.map((requestId) => expect.objectContaining({ requestId })),
				),
			);
		},
		{ timeout: 15_000 },
	);
});
