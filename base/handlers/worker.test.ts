import {
	createExecutionContext,
	createMessageBatch,
	createScheduledController,
} from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import worker from "../src/index";

const log = vi.spyOn(console, "error").mockImplementation(() => {});

function logged(): unknown[] {
	return log.mock.calls.map(([line]) => JSON.parse(line));
}

afterEach(() => {
	log.mockClear();
});

// `constructor` is a name that objects know by themselves.
describe.each(["no-such-queue", "constructor"])("a batch of %s", (queue) => {
	it("is logged and fails, so that the platform retries it", async () => {
		const messages = [
			{ id: "1", timestamp: new Date(), attempts: 1, body: "not for the logs" },
		];
		const batch = createMessageBatch(queue, messages);
		const consumed = worker.queue(batch, env, createExecutionContext());
		await expect(consumed).rejects.toThrow(queue);
		expect(logged()).toEqual([
			{
				level: "error",
				message: "Batch failed",
				version: env.CF_VERSION_METADATA.id,
				queue,
				batchSize: 1,
				error: {
					name: "Error",
					message: expect.stringContaining(queue),
					stack: expect.any(String),
				},
			},
		]);
	});
});

describe("a cron expression without a job", () => {
	it("is logged and fails", async () => {
		const scheduledTime = new Date("2026-11-22T03:00:00.000Z");
		const controller = createScheduledController({
			cron: "1 2 3 4 5",
			scheduledTime,
		});
		const run = worker.scheduled(controller, env, createExecutionContext());
		await expect(run).rejects.toThrow("1 2 3 4 5");
		expect(logged()).toEqual([
			expect.objectContaining({
				level: "error",
				message: "Cron job failed",
				cron: "1 2 3 4 5",
				scheduled: "2026-11-22T03:00:00.000Z",
			}),
		]);
	});
});
