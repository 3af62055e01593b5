import type { WorkflowEvent, WorkflowStep } from "cloudflare:workers";
import { WorkflowEntrypoint } from "cloudflare:workers";
import { NonRetryableError } from "cloudflare:workflows";
import { Hono } from "hono";
import * as z from "zod";
import { operatorOnly } from "../../base/access/worker";
import type { AppEnv } from "../../base/base/worker";
import { ApiError, logInfo, readJson } from "../../base/base/worker";

const paramsSchema = z.strictObject({
	email: z.email().max(254),
	metadata: z.record(z.string(), z.string()),
});

const approvalSchema = z.strictObject({ approved: z.boolean() });

/** What an instance is started with. */
type Params = z.infer<typeof paramsSchema>;

/** The decision on it, and when it was made; `null` when nobody made one. */
type Decision = { approved: boolean; decidedAt: string | null };

export const workflows = new Hono<AppEnv>();

workflows.post("/workflows", operatorOnly, async (c) => {
	const params = await readJson(c, paramsSchema);
	// A client that sends a request again gives it the same key.
	const id = c.req.header("Idempotency-Key") || crypto.randomUUID();
	try {
		await c.env.MY_WORKFLOW.create({ id, params });
	} catch (error) {
		if (isWorkflowError(error, "invalid_id")) {
			const message = "Use 1 to 100 letters, digits, `-` and `_`.";
			throw new ApiError(400, "invalid_idempotency_key", message);
		}
		if (!isWorkflowError(error, "already_exists")) {
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
	const { approved } = await readJson(c, approvalSchema);
	const id = c.req.param("id");
	const { instance, status } = await findInstance(c.env, id);
	if (["complete", "errored", "terminated"].includes(status)) {
		const message = `This instance is ${status} and takes no decision.`;
		throw new ApiError(409, "instance_ended", message);
	}
	await instance.sendEvent({ type: "approval", payload: { approved } });
	return c.json({ id, status }, 202);
});

/** Tells errors of Workflows apart: their text begins with a code. */
function isWorkflowError(error: unknown, ...codes: string[]): boolean {
	return codes.some((code) => String(error).includes(`instance.${code}`));
}

/** Finds an instance and its state. Throws a 404 without one. */
async function findInstance(env: Env, id: string) {
	try {
		const instance = await env.MY_WORKFLOW.get(id);
		const { status, output = null, error = null } = await instance.status();
		return { instance, status, output, error };
	} catch (error) {
		if (isWorkflowError(error, "not_found", "invalid_id")) {
			throw new ApiError(404, "no_instance", "There is no such instance.");
		}
		throw error;
	}
}

/** Asks a person to approve a request, and acts on the decision. */
export class MyWorkflow extends WorkflowEntrypoint<Env, Params> {
	/** Runs again whenever an instance resumes; steps with a result are skipped. */
	override async run(
		event: Readonly<WorkflowEvent<Params>>,
		step: WorkflowStep,
	): Promise<Params & Decision> {
		const instance = event.instanceId;
		const params = await step.do("check params", async () => {
			const { data, error } = paramsSchema.safeParse(event.payload);
			if (error) {
				// No retry would help.
				throw new NonRetryableError(z.prettifyError(error));
			}
			return data;
		});
		await step.do("ask for approval", async () => {
			logInfo("Approval wanted", { instance });
		});
		const decision = await waitForApproval(step);
		if (decision.approved) {
			await step.sleep("leave time to withdraw", "5 seconds");
		}
		return step.do(
			"carry out decision",
			{
				retries: { limit: 5, delay: "5 seconds", backoff: "exponential" },
				timeout: "1 minute",
			},
			// A step may run more than once: let what it does recognise a repeat.
			async () => {
				logInfo("Decision made", { instance, ...decision });
				return { ...params, ...decision };
			},
		);
	}
}

/** Waits a week for the first decision. Without one, it is a no. */
async function waitForApproval(step: WorkflowStep): Promise<Decision> {
	try {
		const { payload, timestamp } = await step.waitForEvent<z.infer<
			typeof approvalSchema
		> | null>("wait for approval", { type: "approval", timeout: "7 days" });
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
