import type { WorkflowEvent, WorkflowStep } from "cloudflare:workers";
import { WorkflowEntrypoint } from "cloudflare:workers";
import { NonRetryableError } from "cloudflare:workflows";
import * as z from "zod";
import { ApiError, app } from "../../base/http/worker";
import { idempotencyKey, idempotentId } from "../../base/idempotency/worker";
import { readJson } from "../../base/json/worker";
import { logInfo } from "../../base/log/worker";
import { operatorOnly } from "../../base/operator/worker";

/** The type of the event that carries a person's decision, unless told. */
const WORKFLOWS_APPROVAL = "approval";

export const workflowsRequest = z.strictObject({
	email: z.email().max(254),
	metadata: z.record(z.string(), z.string()),
});

const workflowsApproval = z.strictObject({ approved: z.boolean() });

/** What an instance is started with. */
type WorkflowsRequest = z.infer<typeof workflowsRequest>;

/** The decision on it, and when it was made; `null` when nobody made one. */
type Decision = { approved: boolean; decidedAt: string | null };

/** The statuses in which an instance takes no decision. */
const WORKFLOWS_ENDED = ["complete", "errored", "terminated"];

// The code is all that tells errors apart: `wrangler dev` throws it alone,
// production as `(instance.not_found) Instance not found`.
function workflowsFailed(error: unknown, codes: RegExp): boolean {
	return codes.test(String(error));
}

/**
 * Looks up an instance of any Workflow, and its state.
 *
 * @param workflow The Workflow's binding, such as `env.MY_WORKFLOW`.
 * @throws ApiError 404 when there is none with that id.
 */
export async function workflowsFind(workflow: Workflow, id: string) {
	try {
		const instance = await workflow.get(id);
		const { status, output = null, error = null } = await instance.status();
		return { instance, status, output, error };
	} catch (error) {
		if (workflowsFailed(error, /\binstance\.(not_found|invalid_id)\b/)) {
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
export async function workflowsFindOpen(workflow: Workflow, id: string) {
	const found = await workflowsFind(workflow, id);
	if (WORKFLOWS_ENDED.includes(found.status)) {
		throw new ApiError(
			409,
			"instance_ended",
			`This instance is ${found.status} and takes no decision.`,
		);
	}
	return found;
}

/**
 * Sends a person's decision to an instance that waits for it, or will, with
 * `workflowsDecide`.
 *
 * @param type Which decision it is, where a Workflow waits for several.
 * @returns The instance's status before it.
 * @throws ApiError 404 when there is none with that id, 409 when it has ended.
 */
export async function workflowsApprove(
	workflow: Workflow,
	id: string,
	approved: boolean,
	type = WORKFLOWS_APPROVAL,
) {
	const { instance, status } = await workflowsFindOpen(workflow, id);
	try {
		await instance.sendEvent({ type, payload: { approved } });
	} catch (error) {
		// It may have ended since it was looked up.
		await workflowsFindOpen(workflow, id);
		throw error;
	}
	return status;
}

/**
 * Starts an instance, or finds the one that has been started with this id.
 *
 * @returns Its status.
 */
export async function workflowsStart<Params>(
	workflow: Workflow<Params>,
	id: string,
	params: Params,
) {
	try {
		await workflow.create({ id, params });
	} catch (error) {
		if (!workflowsFailed(error, /\binstance\.already_exists\b/)) {
			throw error;
		}
		return (await workflowsFind(workflow, id)).status;
	}
	// Asking for the status could fail and so hide the id of what has started.
	return "queued";
}

app.post("/workflows", operatorOnly, async (c) => {
	const params = await readJson(c, workflowsRequest);
	const key = idempotencyKey(c);
	const id =
		key === undefined
			? crypto.randomUUID()
			: await idempotentId("workflows", key);
	const status = await workflowsStart(c.env.MY_WORKFLOW, id, params);
	return c.json({ id, status }, 202);
});

app.get("/workflows/:id", operatorOnly, async (c) => {
	const id = c.req.param("id");
	const { status, output, error } = await workflowsFind(c.env.MY_WORKFLOW, id);
	return c.json({ id, status, output, error });
});

app.post("/workflows/:id/approval", operatorOnly, async (c) => {
	const { approved } = await readJson(c, workflowsApproval);
	const id = c.req.param("id");
	const status = await workflowsApprove(c.env.MY_WORKFLOW, id, approved);
	return c.json({ id, status }, 202);
});

/**
 * Checks an input in a step, such as what an instance was started with, which need
 * not be by a route.
 *
 * @throws NonRetryableError when it is not what the schema asks for, since no
 * retry would help.
 */
export function workflowsCheck<Schema extends z.ZodType>(
	schema: Schema,
	input: unknown,
): z.infer<Schema> {
	const result = schema.safeParse(input);
	if (!result.success) {
		throw new NonRetryableError(z.prettifyError(result.error));
	}
	return result.data;
}

/**
 * Waits for a person's decision.
 *
 * @param options How long, a week unless told, and which decision it is where a
 * Workflow waits for several.
 * @returns The first one, which may have come before this waits; not
 * approved when nobody makes one in time.
 */
export async function workflowsDecide(
	step: WorkflowStep,
	options: { timeout?: WorkflowSleepDuration; type?: string } = {},
): Promise<Decision> {
	const { timeout = "7 days", type = WORKFLOWS_APPROVAL } = options;
	try {
		const event = await step.waitForEvent<{ approved?: boolean } | null>(
			`wait for ${type}`,
			{ type, timeout },
		);
		return {
			// An event that did not come by the route is unchecked.
			approved: event.payload?.approved === true,
			decidedAt: event.timestamp.toISOString(),
		};
	} catch (error) {
		// Only the message tells a time-out from other errors.
		if (!/\btimed out\b/.test(String(error))) {
			throw error;
		}
		return { approved: false, decidedAt: null };
	}
}

/**
 * Tells people what has happened. Send your e-mail or chat message from here.
 *
 * A step may run more than once: pass `instance` and `message` on, so that the
 * receiver recognises a repeat.
 */
async function workflowsTell(
	instance: string,
	message: string,
	fields: Partial<Decision> = {},
): Promise<void> {
	logInfo(message, { instance, ...fields });
	// Your messages
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
	): Promise<WorkflowsRequest & Decision> {
		const id = event.instanceId;

		const request = await step.do("check request", async () =>
			workflowsCheck(workflowsRequest, event.payload),
		);
		await step.do("ask for approval", () =>
			workflowsTell(id, "Approval wanted"),
		);
		const decision = await workflowsDecide(step);
		if (decision.approved) {
			// Until then, terminating the instance undoes a slip of the finger.
			await step.sleep("leave time to withdraw", "5 seconds");
		}
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
