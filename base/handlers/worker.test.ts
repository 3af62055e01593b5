import {
	createExecutionContext,
	createMessageBatch,
	createScheduledController,
} from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, inject, it, vi } from "vitest";
import worker from "../src/index";

declare module "vitest" {
	/** What vitest.config.ts takes from wrangler.jsonc. */
	interface ProvidedContext {
		crons: string[];
		queues: string[];
	}
}

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

describe("what wrangler.jsonc names is in its table in src/index.ts:", () => {
	/** Returns what the table has where a handler looks this name up. */
	async function namesBeside(name: string, handle: () => Promise<void>) {
		const lookUp = vi.spyOn(Object, "hasOwn");
		await expect(handle()).rejects.toThrow();
		const [table = {}] =
			lookUp.mock.calls.find((call) => call[1] === name) ?? [];
		lookUp.mockRestore();
		return Object.keys(table);
	}

	it("the queues that are consumed", async () => {
		const batch = createMessageBatch("unknown", []);
		const names = await namesBeside("unknown", () =>
			worker.queue(batch, env, createExecutionContext()),
		);
		expect(names).toEqual(expect.arrayContaining(inject("queues")));
	});

	it("the cron expressions", async () => {
		const controller = createScheduledController({ cron: "unknown" });
		const names = await namesBeside("unknown", () =>
			worker.scheduled(controller, env, createExecutionContext()),
		);
		expect(names).toEqual(expect.arrayContaining(inject("crons")));
	});
});
