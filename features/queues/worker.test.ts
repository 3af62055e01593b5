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

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const JSON_TYPE = { "Content-Type": "application/json" };
const UPSTREAM = "https://upstream.example/batches";
const SENT = { metadata: { metrics: { backlogCount: 1, backlogBytes: 1 } } };

const send = vi.spyOn(env.REQUEST_QUEUE, "send");
const upstream = vi.spyOn(globalThis, "fetch");
const log = vi.spyOn(console, "error");

beforeEach(() => {
	env.UPSTREAM_API_URL = UPSTREAM;
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
		[413, "over 128 KB once queued", `[${"1e20,".repeat(9999)}1]`, {}],
		[400, "no JSON", "{", {}],
		[400, "nothing at all", "", {}],
		[400, "nested too deep", "[".repeat(9999) + "]".repeat(9999), {}],
	];

	it.each(refused)("answers %i to %s", async (status, _, body, headers) => {
		expect((await post(body, headers)).status).toBe(status);
		expect(send).not.toHaveBeenCalled();
	});

	it.each(["", "upstream.example"])(
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
		attempts: 1,
		body,
	}));
	const batch = createMessageBatch<unknown>("requests", messages);
	await worker.queue(batch, env);
	const result = await getQueueResult(batch, createExecutionContext());
	return {
		isTaken: result.ackAll,
		isRetried: result.retryBatch.retry,
		retried: result.retryMessages.map(({ msgId }) => msgId),
	};
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
		expect(result).toEqual({ isTaken: true, isRetried: false, retried: [] });
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
	});

	it.each([302, 400, 401, 404, 413, 429, 500, 503])(
		"keeps the batch for a retry when the upstream answers %i",
		async (status) => {
			upstream.mockImplementation(async () => new Response("no", { status }));
			const result = await consume(request("a"), request("b"));
			expect(result).toEqual({ isTaken: false, isRetried: true, retried: [] });
			expect(upstream).toHaveBeenCalledTimes(1);
			expect(log).toHaveBeenCalledTimes(1);
		},
	);

	it("keeps the batch for a retry when the upstream is out of reach", async () => {
		upstream.mockRejectedValue(new TypeError("Network connection lost."));
		const result = await consume(request("a"));
		expect(result).toMatchObject({ isTaken: false, isRetried: true });
		expect(log).toHaveBeenCalledTimes(1);
		expect(log.mock.calls[0]?.[0]).toContain("Network connection lost.");
		expect(log.mock.calls[0]?.[0]).not.toContain(env.UPSTREAM_API_KEY);
	});

	it("keeps the batch for a retry when the upstream takes too long", async () => {
		const timeout = vi.spyOn(AbortSignal, "timeout");
		timeout.mockImplementation(() => AbortSignal.abort(new Error("too long")));
		upstream.mockImplementation(async (_, init) => {
			init?.signal?.throwIfAborted();
			return new Response("taken");
		});
		const result = await consume(request("a"));
		expect(result).toMatchObject({ isTaken: false, isRetried: true });
	});

	it("keeps the batch when UPSTREAM_API_URL has gone meanwhile", async () => {
		env.UPSTREAM_API_URL = "";
		upstream.mockReset();
		const result = await consume(request("a"));
		expect(result).toMatchObject({ isTaken: false, isRetried: true });
	});

	it("retries malformed messages and delivers the others", async () => {
		const { headers, ...incomplete } = request("b");
		const bodies = [null, "text", { requestId: 1 }, incomplete];
		const result = await consume(...bodies, request("a"));
		expect(result).toEqual({
			isTaken: true,
			isRetried: false,
			retried: ["message-0", "message-1", "message-2", "message-3"],
		});
		const [batch] = await Promise.all(posts());
		expect(batch).toMatchObject({ batchSize: 1, requests: [request("a")] });
		expect(log).toHaveBeenCalledTimes(bodies.length);
	});

	it("posts nothing when all messages are malformed", async () => {
		const result = await consume(null);
		expect(result).toMatchObject({ isTaken: false, retried: ["message-0"] });
		expect(upstream).not.toHaveBeenCalled();
	});

	it("drops what a message should not hold", async () => {
		const { headers, ...rest } = request("a");
		await consume({ ...rest, headers: { ...headers, cookie: "secret" } });
		const [batch] = await Promise.all(posts());
		expect(batch).toMatchObject({ requests: [request("a")] });
	});

	it("posts a message that arrives again under the same id", async () => {
		await consume(request("a"));
		await consume(request("a"));
		const [first, second] = await Promise.all(posts());
		expect(first?.requests).toEqual(second?.requests);
	});
});

it("takes a request from the client to the upstream", async () => {
	send.mockRestore();
	const response = await post('{"order":7}');
	const { requestId } = await response.json<{ requestId: string }>();
	await vi.waitFor(() => expect(upstream).toHaveBeenCalledTimes(1), {
		timeout: 15_000,
	});
	const [batch] = await Promise.all(posts());
	expect(batch).toMatchObject({
		batchSize: 1,
		requests: [{ requestId, body: { order: 7 } }],
	});
});
