import { Hono } from "hono";
import * as z from "zod";
import { operatorOnly } from "../../base/access/worker";
import { ApiError, logError, readJson } from "../../base/base/worker";

const UPSTREAM_TIMEOUT_MS = 10_000;

/** @type {Hono<{ Bindings: Env }>} */
export const requests = new Hono();

requests.post("/requests", operatorOnly, async (c) => {
	const body = await readJson(c, z.unknown());
	const requestId = await queueRequest(c.env, {
		// A client that sends a request again gives it the same key.
		requestId: c.req.header("Idempotency-Key") || c.var.requestId,
		// No others: the queue must hold no credentials.
		headers: {
			"content-type": c.req.header("Content-Type"),
			"user-agent": c.req.header("User-Agent"),
		},
		body,
	});
	return c.json({ message: "Request queued", requestId }, 202);
});

/**
 * Queues a request for the upstream, from anywhere in the Worker.
 *
 * @param request Its `body`; other keys have the values below unless they are given.
 * @throws ApiError 503 when no upstream is set; Error when the queue refuses it,
 * such as for more than 128 KB.
 */
export async function queueRequest(env, request) {
	requireUpstream(env);
	const message = {
		// By this, the upstream recognises a repeat.
		requestId: crypto.randomUUID(),
		timestamp: new Date().toISOString(),
		method: "POST",
		path: "/requests",
		headers: { "content-type": "application/json" },
		...request,
	};
	await env.REQUEST_QUEUE.send(message);
	return message.requestId;
}

function requireUpstream(env) {
	if (!/^https?:\/\/./.test(env.UPSTREAM_API_URL) || !env.UPSTREAM_API_KEY) {
		const message =
			"Set UPSTREAM_API_URL in wrangler.jsonc, and UPSTREAM_API_KEY in .dev.vars or with wrangler secret put.";
		throw new ApiError(503, "upstream_not_configured", message);
	}
}

/**
 * Posts a batch to the upstream. After a refusal, posts its messages one by one,
 * so that a bad one takes no other along.
 */
export async function deliverRequests({ messages }, env) {
	const answer = await postMessages(env, messages);
	const isSplit = answer === "refused" && messages.length > 1;
	for (const message of messages) {
		const own = isSplit ? await postMessages(env, [message]) : answer;
		if (own === "taken") {
			message.ack();
		} else {
			// Comes again after `retry_delay`; in the end, to the dead-letter queue.
			message.retry();
		}
	}
}

/** Posts messages as one batch. Only "refused" says that one of them is bad. */
async function postMessages(env, messages) {
	const bodies = messages.map(({ body }) => body);
	const requestIds = bodies.map((body) => body?.requestId);
	try {
		requireUpstream(env);
		const response = await fetch(env.UPSTREAM_API_URL, {
			method: "POST",
			headers: {
				"Content-Type": "application/json",
				Authorization: `Bearer ${env.UPSTREAM_API_KEY}`,
			},
			body: JSON.stringify({
				timestamp: new Date().toISOString(),
				batchSize: bodies.length,
				requests: bodies,
			}),
			redirect: "manual", // Followed, it could become a GET that succeeds.
			signal: AbortSignal.timeout(UPSTREAM_TIMEOUT_MS),
		});
		await response.body?.cancel();
		const { ok, status } = response;
		if (ok) {
			return "taken";
		}
		logError("Batch not delivered", `Status ${status}`, { requestIds });
		const isForLater = status === 408 || status === 429;
		return status >= 400 && status < 500 && !isForLater ? "refused" : "failed";
	} catch (error) {
		logError("Batch not delivered", error, { requestIds });
		return "failed";
	}
}
