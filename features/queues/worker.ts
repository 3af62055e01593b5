import * as z from "zod";
import { ApiError, app, logError } from "../../base/http/worker";
import { readJson } from "../../base/json/worker";
import { operatorOnly } from "../../base/operator/worker";

/** A message has at most 128 KB, of which the platform uses about 100 bytes. */
const QUEUES_MESSAGE_BYTES = 127_000;
const QUEUES_UPSTREAM_MS = 10_000;

/** A request as the queue holds it and the upstream gets it. */
const queuesRequest = z.object({
	/** Stays the same however often the request arrives. */
	requestId: z.string(),
	/** When it came in, in ISO 8601. */
	timestamp: z.string(),
	method: z.string(),
	path: z.string(),
	// No others: who reads the queue must not learn of credentials.
	headers: z.object({
		"content-type": z.string().optional(),
		"user-agent": z.string().optional(),
	}),
	body: z.unknown(),
});

type QueuesRequest = z.infer<typeof queuesRequest>;

app.post("/requests", operatorOnly, async (c) => {
	const body = await readJson(c, z.unknown());
	if (!URL.canParse(c.env.UPSTREAM_API_URL)) {
		throw new ApiError(
			503,
			"upstream_not_configured",
			"Set UPSTREAM_API_URL in wrangler.jsonc to the URL that takes batches.",
		);
	}
	const { requestId } = c.var;
	const request: QueuesRequest = {
		requestId,
		timestamp: new Date().toISOString(),
		method: c.req.method,
		path: c.req.path,
		headers: {
			"content-type": c.req.header("Content-Type"),
			"user-agent": c.req.header("User-Agent"),
		},
		body,
	};
	// Written again, JSON may be longer than it was: 1e20 gets 21 digits.
	const { byteLength } = new TextEncoder().encode(JSON.stringify(request));
	if (byteLength > QUEUES_MESSAGE_BYTES) {
		throw new ApiError(
			413,
			"message_too_large",
			`A request may have ${QUEUES_MESSAGE_BYTES} bytes in the queue.`,
		);
	}
	await c.env.REQUEST_QUEUE.send(request);
	return c.json({ message: "Request queued", requestId }, 202);
});

/**
 * Posts a batch to the upstream API.
 *
 * @throws Error when the upstream has not taken it: it cannot be reached, is
 * too slow, or answers with anything but a 2xx status.
 */
async function queuesPost(env: Env, requests: QueuesRequest[]): Promise<void> {
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
		signal: AbortSignal.timeout(QUEUES_UPSTREAM_MS),
	});
	await response.body?.cancel();
	if (!response.ok) {
		throw new Error(`The upstream answered ${response.status}`);
	}
}

/**
 * Posts each batch to the upstream once, and acknowledges what it has taken.
 *
 * Everything else is retried after `retry_delay` and, after `max_retries`, ends
 * in the dead-letter queue. There is no other way into that queue, so what will
 * never be taken goes the same way.
 */
export async function queuesConsume(
	batch: MessageBatch<unknown>,
	env: Env,
): Promise<void> {
	const { queue } = batch;
	const requests: QueuesRequest[] = [];
	for (const message of batch.messages) {
		const { success, data, error } = queuesRequest.safeParse(message.body);
		if (success) {
			requests.push(data);
		} else {
			logError("Malformed message", error, { queue, messageId: message.id });
			message.retry();
		}
	}
	if (requests.length === 0) {
		return;
	}
	try {
		await queuesPost(env, requests);
	} catch (error) {
		const batchSize = requests.length;
		logError("Batch not delivered", error, { queue, batchSize });
		batch.retryAll();
		return;
	}
	// Malformed messages stay marked for retry.
	batch.ackAll();
}
