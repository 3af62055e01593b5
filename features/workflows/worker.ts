import type { WorkflowEvent, WorkflowStep } from "cloudflare:workers";
import { WorkflowEntrypoint } from "cloudflare:workers";
import { NonRetryableError } from "cloudflare:workflows";
import * as z from "zod";
import { ApiError, app } from "../../base/http/worker";
import { readJson } from "../../base/json/worker";
import { operatorOnly } from "../../base/operator/worker";

/** The type of the event that carries a person's decision. */
const WORKFLOWS_APPROVAL = "approval";

export const workflowsRequest = z.strictObject({
	email: z.email().max(254),
	metadata: z.record(z.string(), z.string()),
});

const workflowsApproval = z.strictObject({ approved: z.boolean() });

/** What an instance is started with. */
type WorkflowsRequest = z.infer<typeof workflowsRequest>;

/** The decision on it, and when it was made; `null` when nobody made one. */
type WorkflowsDecision = { approved: boolean; decidedAt: string | null };

/**
 * Looks up an instance and its state.
 *
 * @throws ApiError 404 when there is none with that id.
 */
async function workflowsFind(env: Env, id: string) {
	try {
		const instance = await env.MY_WORKFLOW.get(id);
		const { status, output = null } = await instance.status();
		return { instance, status, output };
	} catch (error) {
		// The code is all that tells this from a failure: `wrangler dev` throws it
		// alone, production as `(instance.not_found) Instance not found`.
		if (/\binstance\.(not_found|invalid_id)\b/.test(String(error))) {
			throw new ApiError(404, "no_instance", "There is no such instance.");
		}
		throw error;
	}
}

/**
 * Looks up an instance that can still be decided.
 *
 * @throws ApiError 404 when there is none with that id, 409 when it has ended.
 */
async function workflowsFindOpen(env: Env, id: string) {
	const found = await workflowsFind(env, id);
	if (["complete", "errored", "terminated"].includes(found.status)) {
		throw new ApiError(
			409,
			"instance_ended",
			`This instance is ${found.status} and takes no decision.`,
		);
	}
	return found;
}

app.post("/workflows", operatorOnly, async (c) => {
	const params = await readJson(c, workflowsRequest);
	const id = crypto.randomUUID();
	await c.env.MY_WORKFLOW.create({ id, params });
	// Asking for the status could fail and so hide the id of what has started.
	return c.json({ id, status: "queued" }, 202);
});

app.get("/workflows/:id", operatorOnly, async (c) => {
	const id = c.req.param("id");
	const { status, output } = await workflowsFind(c.env, id);
	return c.json({ id, status, output });
});

app.post("/workflows/:id/approval", operatorOnly, async (c) => {
	const payload = await readJson(c, workflowsApproval);
	const id = c.req.param("id");
	const { instance, status } = await workflowsFindOpen(c.env, id);
	try {
		await instance.sendEvent({ type: WORKFLOWS_APPROVAL, payload });
	} catch (error) {
		// It may have ended since it was looked up.
		await workflowsFindOpen(c.env, id);
		throw error;
	}
	return c.json({ id, status }, 202);
});

/**
 * Checks what an instance was started with: not every one is by the route.
 *
 * @throws NonRetryableError when it is no request.
 */
function workflowsCheck(params: unknown): WorkflowsRequest {
	const result = workflowsRequest.safeParse(params);
	if (!result.success) {
		throw new NonRetryableError(z.prettifyError(result.error));
	}
	return result.data;
}

/**
 * Waits for a person's decision.
 *
 * @returns The first one, which may have come before this waits; a no when
 * nobody makes one in time.
 */
async function workflowsDecide(step: WorkflowStep): Promise<WorkflowsDecision> {
	try {
		const event = await step.waitForEvent<{ approved?: boolean } | null>(
			"wait for approval",
			{ type: WORKFLOWS_APPROVAL, timeout: "7 days" },
		);
		return {
			// An event that did not come by the route is unchecked.
			approved: event.payload?.approved === true,
			decidedAt: event.timestamp.toISOString(),
		};
	} catch (error) {
		// Nothing but the message tells a time-out from other errors.
		if (!/\btimed out\b/.test(String(error))) {
			throw error;
		}
		return { approved: false, decidedAt: null };
	}
}

/**
 * Tells what has happened. Here goes what sends it on, such as an e-mail.
 *
 * A step may run more than once, so pass `id` and `message` on as the key by
 * which the receiver knows a repeat.
 */
async function workflowsTell(
	id: string,
	message: string,
	fields: Partial<WorkflowsDecision> = {},
): Promise<void> {
	console.log(JSON.stringify({ level: "info", message, id, ...fields }));
}

/** Asks a person to approve a request, and acts on the decision. */
export class MyWorkflow extends WorkflowEntrypoint<Env, WorkflowsRequest> {
	/**
	 * Runs an instance. The runtime calls it again whenever it resumes one, and
	 * skips the steps that have a result.
	 *
	 * @returns The request and the decision, which `GET` shows as the output.
	 */
	override async run(
		event: Readonly<WorkflowEvent<WorkflowsRequest>>,
		step: WorkflowStep,
	): Promise<WorkflowsRequest & WorkflowsDecision> {
		const id = event.instanceId;

		const request = await step.do("check request", async () =>
			workflowsCheck(event.payload),
		);
		await step.sleep("leave time to terminate", "3 seconds");
		await step.do("ask for approval", () =>
			workflowsTell(id, "Approval wanted"),
		);
		const decision = await workflowsDecide(step);
		return step.do(
			"carry out decision",
			{
				retries: { limit: 5, delay: "5 seconds", backoff: "exponential" },
				timeout: "1 minute",
			},
			async () => {
				await workflowsTell(id, "Decision made", decision);
				return { ...request, ...decision };
			},
		);
	}
}
