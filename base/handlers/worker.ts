import { logError } from "../log/worker";

/** Consumes the batches of a queue. */
export type QueueConsumer = (
	batch: MessageBatch,
	env: Env,
	ctx: ExecutionContext,
) => void | Promise<void>;

/** Does what is due at the times of a cron expression. */
export type CronJob = (
	controller: ScheduledController,
	env: Env,
	ctx: ExecutionContext,
) => void | Promise<void>;

/**
 * Hands a batch to the consumer of its queue.
 *
 * @param consumers The consumers, by the names of their queues.
 * @throws What the consumer throws, or Error for a queue without one; both are
 * logged, and the platform retries the batch.
 */
export async function consumeBatch(
	consumers: Record<string, QueueConsumer>,
	batch: MessageBatch,
	env: Env,
	ctx: ExecutionContext,
): Promise<void> {
	const { queue, messages } = batch;
	try {
		await handlerOf(consumers, queue)(batch, env, ctx);
	} catch (error) {
		logError("Batch failed", error, { queue, batchSize: messages.length });
		throw error;
	}
}

/**
 * Runs the job of a cron expression.
 *
 * @param jobs The jobs, by their cron expressions as wrangler.jsonc has them.
 * @throws What the job throws, or Error for an expression without one; both are
 * logged, and the run counts as failed.
 */
export async function runCron(
	jobs: Record<string, CronJob>,
	controller: ScheduledController,
	env: Env,
	ctx: ExecutionContext,
): Promise<void> {
	const { cron, scheduledTime } = controller;
	try {
		await handlerOf(jobs, cron)(controller, env, ctx);
	} catch (error) {
		const scheduled = new Date(scheduledTime).toISOString();
		logError("Cron job failed", error, { cron, scheduled });
		throw error;
	}
}

function handlerOf<Handler>(
	handlers: Record<string, Handler>,
	name: string,
): Handler {
	const handler = Object.hasOwn(handlers, name) ? handlers[name] : undefined;
	if (handler === undefined) {
		throw new Error(`Add "${name}" to the table in src/index.ts`);
	}
	return handler;
}
