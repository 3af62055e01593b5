import {
	createExecutionContext,
	createMessageBatch,
	createScheduledController,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { expect, it, vi } from "vitest";
import worker from "./worker";

it("runs with its plugin, its global set-up and its set-up file", () => {
	expect(env.PROBE_DB.database).toBe("from-the-global-set-up");
	expect(globalThis).toHaveProperty("probeSetUp", "from the plugin");
});

it("consumes what it produces", async () => {
	const response = await exports.default.fetch(
		new Request("https://example.com/probe", {
			method: "POST",
			headers: { Authorization: `Bearer ${env.API_TOKEN}` },
		}),
	);
	expect(response.status).toBe(202);
	await vi.waitFor(
		async () => {
			const seen = await env.PROBE.getByName("probe").seen();
			expect(seen).toContain("probe");
		},
		{ timeout: 10_000 },
	);
});

it("runs on schedule", async () => {
	const controller = createScheduledController({ cron: "*/5 * * * *" });
	await worker.scheduled(controller, env, createExecutionContext());
	expect(await env.PROBE.getByName("probe").seen()).toContain("*/5 * * * *");
});
