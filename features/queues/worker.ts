import * as z from "zod";
import { ApiError, app } from "../../base/http/worker";
import { idempotencyKey, idempotentId } from "../../base/idempotency/worker";
import { readJson } from "../../base/json/worker";
import { logError } from "../../base/log/worker";
import { operatorOnly } from "../../base/operator/worker";

/** A message has at most 128 KB, of which the platform uses about 100 bytes. */
const QUEUED_REQUEST_BYTES = 127_000;
const UPSTREAM_TIMEOUT_MS = 10_000;

/** A request as the queue holds it and the upstream gets it. */
const queuedRequest = z.object({
	/** Stays the same however often the request arrives. */
	requestId: z.string(),
	/** When it came in, in ISO 8601. */
	timestamp: z.string(),
	method: z.string(),
	path: z.string(),
	// No others: a reader of the queue must not learn credentials.
	headers: z.object({
		"content-type": z.string().optional(),
		"user-agent": z.string().optional(),
	}),
	body: z.unknown(),
});

type QueuedRequest = z.infer<typeof queuedRequest>;

/** A message, and what it holds. */
type Delivery<Body = QueuedRequest> = { body: Body; message: Message };

/** What the upstream made of a post: only "refused" is about its content. */
type UpstreamAnswer = "taken" | "refused" | "failed";

app.post("/requests", operatorOnly, async (c) => {
	const body = await readJson(c, z.unknown());
	const key = idempotencyKey(c);
	const requestId = await queuesSend(c.env, body, {
		// The same key gives the same id, by which the upstream recognises a repeat.
		requestId:
			key === undefined
				? c.var.requestId
				: await idempotentId("POST /requests", key),
		method: c.req.method,
		path: c.req.path,
		headers: {
			"content-type": c.req.header("Content-Type"),
			"user-agent": c.req.header("User-Agent"),
		},
	});
	return c.json({ message: "Request queued", requestId }, 202);
});

/**
 * Queues a request for the upstream, from anywhere in the Worker.
 *
 * @param body Any JSON.
 * @param origin The request that the body came with. What is left out is that of
 * a post to `/requests`, with a new id.
 * @returns The `requestId`.
 * @throws ApiError 503 when no upstream is set, 413 when the message would be too
 * large; Error when the queue does not take it.
 */
export async function queuesSend(
	env: Env,
	body: unknown,
	origin: Partial<Omit<QueuedRequest, "timestamp" | "body">> = {},
): Promise<string> {
	requireUpstream(env);
	const request = queuedRequest.parse({
		requestId: crypto.randomUUID(),
		timestamp: new Date().toISOString(),
		method: "POST",
		path: "/requests",
		headers: { "content-type": "application/json" },
		...origin,
		body,
	});
	// Written back, JSON can grow: 1e20 becomes 21 digits.
	const { byteLength } = new TextEncoder().encode(JSON.stringify(request));
	if (byteLength > QUEUED_REQUEST_BYTES) {
		throw new ApiError(
			413,
			"message_too_large",
			`Send less: a request may have ${QUEUED_REQUEST_BYTES} bytes in the queue.`,
		);
	}
	await env.REQUEST_QUEUE.send(request);
	return request.requestId;
}

/**
 * Checks that there is an upstream to post to.
 *
 * @throws ApiError 503 when its URL or its key is not set.
 */
function requireUpstream(env: Env): void {
	const { protocol = "" } = URL.parse(env.UPSTREAM_API_URL) ?? {};
	if (!["http:", "https:"].includes(protocol)) {
		throw new ApiError(
			503,
			"upstream_not_configured",
			"Set UPSTREAM_API_URL in wrangler.jsonc to the http(s) URL that takes batches.",
		);
	}
	if (!/^[\x21-\x7e]+$/.test(env.UPSTREAM_API_KEY ?? "")) {
		throw new ApiError(
			503,
			"upstream_not_configured",
			"Set UPSTREAM_API_KEY: locally in .dev.vars (then restart dev), else with wrangler secret put UPSTREAM_API_KEY.",
		);
	}
}

/**
 * Posts requests to the upstream as one batch.
 *
 * @returns The answer, without its body.
 * @throws Error when the upstream is not set, out of reach or too slow.
 */
async function postBatch(
	env: Env,
	requests: QueuedRequest[],
): Promise<Response> {
	requireUpstream(env);
	const response = await fetch(env.UPSTREAM_API_URL, {
		method: "POST",
		headers: {
			"Content-Type": "application/json",
			Authorization: `Bearer ${env.UPSTREAM_API_KEY}`,
		},
		body: JSON.stringify({
			timestamp: new Date().toISOString(),
			batchSize: requests.length,
			requests,
		}),
		// Followed, a redirect could turn the post into a GET that succeeds.
		redirect: "manual",
		signal: AbortSignal.timeout(UPSTREAM_TIMEOUT_MS),
	});
	await response.body?.cancel();
	return response;
}

/** Posts requests as one batch, and logs why the upstream has not taken it. */
async function deliver(
	env: Env,
	queue: string,
	deliveries: Delivery[],
): Promise<UpstreamAnswer> {
	const requests = deliveries.map(({ body }) => body);
	const fields = {
		queue,
		requestIds: requests.map(({ requestId }) => requestId),
		attempts: deliveries.map(({ message }) => message.attempts),
	};
	let response: Response;
	try {
		response = await postBatch(env, requests);
	} catch (error) {
		logError("Batch not delivered", error, fields);
		return "failed";
	}
	const { ok, status } = response;
	if (ok) {
		return "taken";
	}
	const error = new Error(`The upstream answered ${status}`);
	logError("Batch not delivered", error, fields);
	// 408 and 429 ask for another time, and a redirect says that the URL is wrong.
	const isRefusal =
		status >= 400 && status < 500 && status !== 408 && status !== 429;
	return isRefusal ? "refused" : "failed";
}

/**
 * Acknowledges messages that the upstream has taken. The others come again after
 * `retry_delay`, and after `max_retries` move to the dead-letter queue.
 */
function settle(deliveries: Delivery[], answer: UpstreamAnswer): void {
	for (const { message } of deliveries) {
		if (answer === "taken") {
			message.ack();
		} else {
			message.retry();
		}
	}
}

/** Returns what the messages of a batch hold, without those that hold something else. */
function readBatch<Schema extends z.ZodType>(
	{ queue, messages }: MessageBatch,
	schema: Schema,
): Delivery<z.infer<Schema>>[] {
	return messages.flatMap((message) => {
		const { success, data, error } = schema.safeParse(message.body);
		if (success) {
			return [{ body: data, message }];
		}
		const { id: messageId, attempts } = message;
		logError("Malformed message", error, { queue, messageId, attempts });
		// Waiting does not help: on to the dead-letter queue without delay.
		message.retry({ delaySeconds: 0 });
		return [];
	});
}

/**
 * Consumes a batch of a queue of your own, one message after the other. Each is
 * acknowledged when its work is done; one that fails, or does not hold what the
 * schema asks for, comes again and takes no other along.
 *
 * @param work Does the work of one message. It may run again for the same message.
 */
export async function queuesEach<Schema extends z.ZodType>(
	batch: MessageBatch,
	schema: Schema,
	work: (body: z.infer<Schema>, message: Message) => Promise<void>,
): Promise<void> {
	for (const { body, message } of readBatch(batch, schema)) {
		try {
			await work(body, message);
			message.ack();
		} catch (error) {
			const { id: messageId, attempts } = message;
			const { queue } = batch;
			logError("Message not consumed", error, { queue, messageId, attempts });
			message.retry();
		}
	}
}

/**
 * Posts a batch to the upstream. When it refuses the batch, each request gets a
 * post of its own, so that a bad one does not fail the others.
 */
export async function queuesConsume(
	batch: MessageBatch<unknown>,
	env: Env,
): Promise<void> {
	const deliveries = readBatch(batch, queuedRequest);
	if (deliveries.length === 0) {
		return;
	}
	let answer = await deliver(env, batch.queue, deliveries);
	if (answer !== "refused" || deliveries.length === 1) {
		settle(deliveries, answer);
		return;
	}
	for (const delivery of deliveries) {
		// Once the upstream fails, the rest waits for the retry.
		if (answer !== "failed") {
			answer = await deliver(env, batch.queue, [delivery]);
		}
		settle([delivery], answer);
	}
}
