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
import * as z from "zod";
import worker from "../src/index";
import { queuesEach } from "./worker";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const JSON_TYPE = { "Content-Type": "application/json" };
const QUEUE = "{project_name}-requests";
const UPSTREAM = "https://upstream.example/batches";
const SENT = { metadata: { metrics: { backlogCount: 1, backlogBytes: 1 } } };

const send = vi.spyOn(env.REQUEST_QUEUE, "send");
const upstream = vi.spyOn(globalThis, "fetch");
const log = vi.spyOn(console, "error");

beforeEach(() => {
	env.UPSTREAM_API_URL = UPSTREAM;
	env.UPSTREAM_API_KEY = "key-of-the-upstream";
	send.mockResolvedValue(SENT);
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
			headers: { ...OPERATOR, ...JSON_TYPE, ...headers },
			body,
		}),
	);
}

describe("POST /requests", () => {
	it("queues the request without its credentials", async () => {
		const response = await post('{"order":7}', {
			"User-Agent": "shop/1.0",
			Cookie: "id=secret",
			"X-Api-Key": "secret",
		});
		expect(response.status).toBe(202);
		const requestId = response.headers.get("X-Request-Id");
		expect(await response.json()).toEqual({
			message: expect.any(String),
			requestId,
		});
		expect(send.mock.calls).toEqual([
			[
				{
					requestId,
					timestamp: expect.stringMatching(/^\d{4}-.*T.*Z$/),
					method: "POST",
					path: "/requests",
					headers: {
						"content-type": "application/json",
						"user-agent": "shop/1.0",
					},
					body: { order: 7 },
				},
			],
		]);
	});

	it("gives each request an id of its own", async () => {
		const first = await (await post("1")).json<{ requestId: string }>();
		const second = await (await post("1")).json<{ requestId: string }>();
		expect(first.requestId).not.toBe(second.requestId);
	});

	const shapes = ["null", "0", '""', "[]", "{}", '{"a":[{"b":null}]}'];

	it.each(shapes)("takes the body %s", async (shape) => {
		expect((await post(shape)).status).toBe(202);
		expect(send.mock.calls[0]?.[0]).toMatchObject({ body: JSON.parse(shape) });
	});

	const refused: [number, string, string, Record<string, string>][] = [
		[415, "another type", "{}", { "Content-Type": "text/plain" }],
		[413, "over 64 KiB", JSON.stringify("x".repeat(65_536)), {}],
		[400, "no JSON", "{", {}],
		[400, "nothing at all", "", {}],
		[400, "nested too deep", "[".repeat(9999) + "]".repeat(9999), {}],
	];

	it.each(refused)("answers %i to %s", async (status, _, body, headers) => {
		expect((await post(body, headers)).status).toBe(status);
		expect(send).not.toHaveBeenCalled();
	});

	it.each(["", "upstream.example", "localhost:3000/in", "ftp://a.example/"])(
		"answers 503 while UPSTREAM_API_URL is %j",
		async (url) => {
			env.UPSTREAM_API_URL = url;
			const response = await post("{}");
			expect(response.status).toBe(503);
			expect(await response.json()).toEqual({
				error: {
					code: "upstream_not_configured",
					message: expect.stringContaining("UPSTREAM_API_URL"),
				},
			});
			expect(send).not.toHaveBeenCalled();
		},
	);

	it("answers 503 while UPSTREAM_API_KEY is empty", async () => {
		env.UPSTREAM_API_KEY = "";
		const response = await post("{}");
		expect(response.status).toBe(503);
		expect(await response.json()).toMatchObject({
			error: {
				code: "upstream_not_configured",
				message: expect.stringContaining("UPSTREAM_API_KEY"),
			},
		});
		expect(send).not.toHaveBeenCalled();
	});

	it("takes an upstream without TLS", async () => {
		env.UPSTREAM_API_URL = "http://upstream.example";
		expect((await post("{}")).status).toBe(202);
	});

	it("gives the same key the same id, and another key another", async () => {
		const ids: string[] = [];
		for (const key of ["~ first", "~ first", "k".repeat(128)]) {
			const response = await post("{}", { "Idempotency-Key": key });
			const { requestId } = await response.json<{ requestId: string }>();
			ids.push(requestId);
		}
		const [first, again, other] = ids;
		expect(first).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
		expect(first).toBe(again);
		expect(first).not.toBe(other);
		expect(send.mock.calls.map(([message]) => message)).toMatchObject(
			ids.map((requestId) => ({ requestId })),
		);
	});

	it.each(["", "a\tb", "k".repeat(129)])(
		"answers 400 to the key %j",
		async (key) => {
			const response = await post("{}", { "Idempotency-Key": key });
			expect(response.status).toBe(400);
			expect(send).not.toHaveBeenCalled();
		},
	);

	it("takes 127,000 bytes in the queue and answers 413 above", async () => {
		await post('""');
		const room = 127_000 - JSON.stringify(send.mock.calls[0]?.[0]).length;
		// Each 1e20 takes 21 bytes there, with a comma 22.
		const numbers = Math.floor((room - 30) / 22);
		const bodyOf = (bytes: number) =>
			`[${"1e20,".repeat(numbers)}"${"x".repeat(bytes - 22 * numbers - 2)}"]`;
		expect((await post(bodyOf(room))).status).toBe(202);
		expect(JSON.stringify(send.mock.calls[1]?.[0])).toHaveLength(127_000);
		const response = await post(bodyOf(room + 1));
		expect(response.status).toBe(413);
		expect(await response.json()).toMatchObject({
			error: { code: "message_too_large" },
		});
		expect(send).toHaveBeenCalledTimes(2);
	});

	it("promises nothing when the queue does not take the message", async () => {
		send.mockRejectedValue(new Error("Too Many Requests"));
		expect((await post("{}")).status).toBe(500);
		expect(log).toHaveBeenCalledTimes(1);
	});

	it.each(["Bearer wrong", "Bearer ", "Basic dTpw"])(
		"answers 401 to Authorization %j",
		async (Authorization) => {
			const response = await post("{}", { Authorization });
			expect(response.status).toBe(401);
			expect(response.headers.get("WWW-Authenticate")).toBe("Bearer");
			expect(send).not.toHaveBeenCalled();
		},
	);
});

function request(requestId: string) {
	return {
		requestId,
		timestamp: "2026-11-22T10:00:00.000Z",
		method: "POST",
		path: "/requests",
		headers: { "content-type": "application/json", "user-agent": "shop/1.0" },
		body: { order: 7 },
	};
}

/** Consumes messages with these bodies; tells which were marked how. */
async function consume(...bodies: unknown[]) {
	const messages = bodies.map((body, index) => ({
		id: `message-${index}`,
		timestamp: new Date(),
		attempts: index + 1,
		body,
	}));
	const batch = createMessageBatch<unknown>(QUEUE, messages);
	const retries = batch.messages.map((message) => vi.spyOn(message, "retry"));
	const context = createExecutionContext();
	await worker.queue(batch, env, context);
	const { ackAll, explicitAcks, retryBatch, retryMessages } =
		await getQueueResult(batch, context);
	expect(ackAll || retryBatch.retry).toBe(false);
	return {
		taken: explicitAcks,
		retried: retryMessages.map(({ msgId }) => msgId),
		// Those without an option come again after `retry_delay`.
		delays: retries.flatMap(({ mock }) => mock.calls.flat()),
	};
}

/** Answers a post with the status that is found for one of its request ids. */
function answer(statuses: Record<string, number>): void {
	upstream.mockImplementation(async (...call) => {
		const { requests } = await new Request(...call).json<{
			requests: { requestId: string }[];
		}>();
		const found = requests.map(({ requestId }) => statuses[requestId] ?? 200);
		return new Response("answer", { status: Math.max(...found) });
	});
}

/** The ids of each post that the upstream was sent. */
async function postedIds(): Promise<string[][]> {
	const batches = await Promise.all(posts());
	return batches.map(({ requests }) =>
		(requests as { requestId: string }[]).map(({ requestId }) => requestId),
	);
}

/** What the upstream was sent, a post each. */
function posts(): Promise<Record<string, unknown>>[] {
	return upstream.mock.calls.map((call) =>
		new Request(...call).json<Record<string, unknown>>(),
	);
}

describe("the consumer", () => {
	it("posts a batch once, with the key, and acknowledges it", async () => {
		const result = await consume(request("a"), request("b"));
		expect(result).toMatchObject({
			taken: ["message-0", "message-1"],
			retried: [],
		});
		expect(await Promise.all(posts())).toEqual([
			{
				timestamp: expect.stringMatching(/^\d{4}-.*T.*Z$/),
				batchSize: 2,
				requests: [request("a"), request("b")],
			},
		]);
		const sent = new Request(...(upstream.mock.calls[0] ?? [""]));
		expect(sent.url).toBe(UPSTREAM);
		expect(sent.method).toBe("POST");
		expect(sent.headers.get("Content-Type")).toBe("application/json");
		expect(sent.headers.get("Authorization")).toBe(
			`Bearer ${env.UPSTREAM_API_KEY}`,
		);
		expect(log).not.toHaveBeenCalled();
	});

	it.each([204, 299])("takes %i for a success", async (status) => {
		upstream.mockImplementation(async () => new Response(null, { status }));
		expect((await consume(request("a"))).taken).toEqual(["message-0"]);
	});

	it.each([302, 399, 408, 429, 500, 599])(
		"keeps the batch for a retry when the upstream answers %i",
		async (status) => {
			upstream.mockImplementation(async () => new Response(null, { status }));
			const result = await consume(request("a"), request("b"));
			expect(result).toEqual({
				taken: [],
				retried: ["message-0", "message-1"],
				delays: [],
			});
			expect(upstream).toHaveBeenCalledTimes(1);
			expect(log).toHaveBeenCalledTimes(1);
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

	it.each([400, 407, 409, 428, 430, 499])(
		"posts the messages of a batch one by one after a %i",
		async (status) => {
			answer({ bad: status });
			const result = await consume(request("a"), request("bad"), request("b"));
			expect(result).toEqual({
				taken: ["message-0", "message-2"],
				retried: ["message-1"],
				delays: [],
			});
			expect(await postedIds()).toEqual([
				["a", "bad", "b"],
				["a"],
				["bad"],
				["b"],
			]);
			const sizes = (await Promise.all(posts())).map((post) => post.batchSize);
			expect(sizes).toEqual([3, 1, 1, 1]);
		},
	);

	it("posts a message that was alone in its batch no second time", async () => {
		answer({ bad: 400 });
		expect((await consume(request("bad"))).retried).toEqual(["message-0"]);
		expect(await postedIds()).toEqual([["bad"]]);
	});

	it("keeps the rest for a retry when the upstream fails in between", async () => {
		const statuses = [400, 200, 503];
		upstream.mockImplementation(
			async () => new Response("answer", { status: statuses.shift() ?? 200 }),
		);
		const result = await consume(...["a", "b", "c", "d"].map(request));
		expect(result).toMatchObject({
			taken: ["message-0"],
			retried: ["message-1", "message-2", "message-3"],
		});
		expect(upstream).toHaveBeenCalledTimes(3);
	});

	it("logs which requests were not delivered, and nothing of their bodies", async () => {
		upstream.mockImplementation(
			async () => new Response("secret of the upstream", { status: 503 }),
		);
		await consume(request("a"), { ...request("b"), body: "secret" });
		const line = log.mock.calls[0]?.[0];
		expect(JSON.parse(line)).toMatchObject({
			message: "Batch not delivered",
			queue: QUEUE,
			requestIds: ["a", "b"],
			attempts: [1, 2],
			error: { message: expect.stringContaining("503") },
		});
		expect(line).not.toContain("secret");
	});

	it("keeps the batch for a retry when the upstream is out of reach", async () => {
		upstream.mockRejectedValue(new TypeError("Network connection lost."));
		const result = await consume(request("a"), request("b"));
		expect(result).toMatchObject({
			taken: [],
			retried: ["message-0", "message-1"],
		});
		expect(upstream).toHaveBeenCalledTimes(1);
		expect(log).toHaveBeenCalledTimes(1);
		const line = log.mock.calls[0]?.[0];
		expect(JSON.parse(line)).toMatchObject({
			requestIds: ["a", "b"],
			error: { message: "Network connection lost." },
		});
		expect(line).not.toContain(env.UPSTREAM_API_KEY);
	});

	it("keeps the batch for a retry when the upstream takes too long", async () => {
		const timeout = vi.spyOn(AbortSignal, "timeout");
		timeout.mockImplementation(() => AbortSignal.abort(new Error("too long")));
		upstream.mockImplementation(async (_, init) => {
			init?.signal?.throwIfAborted();
			return new Response("taken");
		});
		const result = await consume(request("a"));
		expect(result).toMatchObject({ taken: [], retried: ["message-0"] });
		expect(timeout).toHaveBeenCalledExactlyOnceWith(10_000);
	});

	it.each(["UPSTREAM_API_URL", "UPSTREAM_API_KEY"] as const)(
		"keeps the batch when %s has gone meanwhile",
		async (name) => {
			env[name] = "";
			const result = await consume(request("a"));
			expect(result).toMatchObject({ taken: [], retried: ["message-0"] });
			expect(upstream).not.toHaveBeenCalled();
		},
	);

	it("hurries malformed messages on, logs them without their bodies, and delivers the others", async () => {
		const { headers, ...incomplete } = request("secret");
		const bodies = [null, "secret", { requestId: 1 }, incomplete];
		const result = await consume(...bodies, request("a"));
		expect(result).toEqual({
			taken: ["message-4"],
			retried: ["message-0", "message-1", "message-2", "message-3"],
			delays: bodies.map(() => ({ delaySeconds: 0 })),
		});
		const [batch] = await Promise.all(posts());
		expect(batch).toMatchObject({ batchSize: 1, requests: [request("a")] });
		expect(log).toHaveBeenCalledTimes(bodies.length);
		const line = log.mock.calls[1]?.[0];
		expect(JSON.parse(line)).toMatchObject({
			message: "Malformed message",
			queue: QUEUE,
			messageId: "message-1",
			attempts: 2,
		});
		expect(line).not.toContain("secret");
	});

	it("posts nothing when all messages are malformed", async () => {
		const result = await consume(null);
		expect(result).toMatchObject({ taken: [], retried: ["message-0"] });
		expect(upstream).not.toHaveBeenCalled();
	});

	it("logs a failure of its own, and leaves the batch to the platform", async () => {
		const timestamp = new Date();
		const message = { id: "1", timestamp, attempts: 1, body: request("a") };
		const batch = createMessageBatch<unknown>(QUEUE, [message]);
		for (const taken of batch.messages) {
			vi.spyOn(taken, "ack").mockImplementation(() => {
				throw new Error("out of order");
			});
		}
		const consumed = worker.queue(batch, env, createExecutionContext());
		await expect(consumed).rejects.toThrow("out of order");
		expect(log).toHaveBeenCalledTimes(1);
		expect(JSON.parse(log.mock.calls[0]?.[0])).toMatchObject({
			message: "Batch failed",
			queue: QUEUE,
			batchSize: 1,
		});
	});

	it("drops what a message should not hold", async () => {
		const { headers, ...rest } = request("a");
		await consume({ ...rest, headers: { ...headers, cookie: "secret" } });
		const [batch] = await Promise.all(posts());
		expect(batch).toMatchObject({ requests: [request("a")] });
		expect(JSON.stringify(batch)).not.toContain("secret");
	});
});

describe("a queue of one's own", () => {
	it("loses no message to another that is malformed or fails", async () => {
		const batch = createMessageBatch(
			"mine",
			["a", 1, "fail", "b"].map((body, index) => ({
				id: `${index}`,
				timestamp: new Date(),
				attempts: 1,
				body,
			})),
		);
		const ctx = createExecutionContext();
		const done: string[] = [];
		await queuesEach(batch, z.string(), async (body) => {
			await scheduler.wait(1);
			if (body === "fail") {
				throw new Error("why");
			}
			done.push(body);
		});
		const { explicitAcks, retryMessages } = await getQueueResult(batch, ctx);
		expect(done).toEqual(["a", "b"]);
		expect(explicitAcks).toEqual(["0", "3"]);
		expect(retryMessages).toEqual([{ msgId: "1" }, { msgId: "2" }]);
		const lines = log.mock.calls.map(([line]) => JSON.parse(line));
		expect(lines).toMatchObject([
			{ message: "Malformed message", queue: "mine", messageId: "1" },
			{ message: "Message not consumed", queue: "mine", messageId: "2" },
		]);
	});
});

it("takes requests from the client to the upstream", async () => {
	send.mockRestore();
	// As many as a batch holds, so that it does not wait for more.
	const responses = await Promise.all(
		Array.from({ length: 10 }, () => post('{"order":7}')),
	);
	const ids = await Promise.all(
		responses.map(async (response) => {
			const { requestId } = await response.json<{ requestId: string }>();
			return requestId;
		}),
	);
	await vi.waitFor(
		async () => expect((await postedIds()).flat().sort()).toEqual(ids.sort()),
		{ timeout: 15_000 },
	);
	const [batch] = await Promise.all(posts());
	expect(batch).toHaveProperty("requests.0.body", { order: 7 });
});
