import { WorkflowEntrypoint } from "cloudflare:workers";
import { Hono } from "hono";
import { sha256 } from "hono/utils/crypto";
import * as z from "zod";
import { operatorOnly } from "../../base/access/worker";
import { ApiError, logInfo, readJson } from "../../base/base/worker";

export const paramsSchema = z.strictObject({
	email: z.email().max(254),
	metadata: z.record(z.string(), z.string()),
});

const approvalSchema = z.strictObject({ approved: z.boolean() });

/** @type {Hono<{ Bindings: Env }>} */
export const workflows = new Hono();

workflows.post("/workflows", operatorOnly, async (c) => {
	const params = await readJson(c, paramsSchema);
	// A client that sends a request again gives it the same key. Hashed, any key
	// makes an id.
	const key = c.req.header("Idempotency-Key") || crypto.randomUUID();
	const id = String(await sha256(key));
	try {
		await c.env.MY_WORKFLOW.create({ id, params });
	} catch (error) {
		if (!String(error).includes("instance.already_exists")) {
			throw error;
		}
		const { status } = await findInstance(c.env, id);
		return c.json({ id, status }, 202);
	}
	return c.json({ id, status: "queued" }, 202);
});

workflows.get("/workflows/:id", operatorOnly, async (c) => {
	const id = c.req.param("id");
	const { status, output, error } = await findInstance(c.env, id);
	return c.json({ id, status, output, error });
});

workflows.post("/workflows/:id/approval", operatorOnly, async (c) => {
	const payload = await readJson(c, approvalSchema);
	const id = c.req.param("id");
	const { instance, status } = await findInstance(c.env, id);
	if (["complete", "errored", "terminated"].includes(status)) {
		const message = `This instance is ${status} and takes no decision.`;
		throw new ApiError(409, "instance_ended", message);
	}
	await instance.sendEvent({ type: "approval", payload });
	return c.json({ id, status }, 202);
});

/** Finds an instance and its state. Throws a 404 without one. */
async function findInstance(env, id) {
	try {
		const instance = await env.MY_WORKFLOW.get(id);
		const { status, output = null, error = null } = await instance.status();
		return { instance, status, output, error };
	} catch (error) {
		// Errors of Workflows differ in the code that their message begins with.
		if (/\binstance\.(not_found|invalid_id)\b/.test(String(error))) {
			throw new ApiError(404, "no_instance", "There is no such instance.");
		}
		throw error;
	}
}

/** Asks a person to approve a request, and acts on the decision. */
export class MyWorkflow extends WorkflowEntrypoint {
	/**
	 * Tells people that a decision is wanted. Like `carryOut`, it runs again when
	 * it fails or takes too long: let what it calls recognise the `instanceId`.
	 */
	async askForApproval(event) {
		logInfo("Approval wanted", { instanceId: event.instanceId });
	}

	/** Acts on the decision. */
	async carryOut(event, decision) {
		logInfo("Decision made", { instanceId: event.instanceId, ...decision });
	}

	/** Runs again whenever an instance resumes; steps with a result are skipped. */
	async run(event, step) {
		await step.do("ask for approval", () => this.askForApproval(event));
		const decision = await waitForApproval(step);
		if (decision.approved) {
			await step.sleep("leave time to withdraw", "5 seconds");
		}
		await step.do(
			"carry out decision",
			{
				retries: { limit: 5, delay: "5 seconds", backoff: "exponential" },
				timeout: "15 minutes",
			},
			() => this.carryOut(event, decision),
		);
		return { ...event.payload, ...decision };
	}
}

/** Waits a week for the first decision. Without one, it is a no. */
async function waitForApproval(step) {
	try {
		const { payload, timestamp } = await step.waitForEvent(
			"wait for approval",
			{ type: "approval", timeout: "7 days" },
		);
		// An event that came past the route may hold anything.
		const approved = payload?.approved === true;
		return { approved, decidedAt: timestamp.toISOString() };
	} catch (error) {
		// Only the message tells a time-out from other errors.
		if (!/\btimed out\b/.test(String(error))) {
			throw error;
		}
		return { approved: false, decidedAt: null };
	}
}
