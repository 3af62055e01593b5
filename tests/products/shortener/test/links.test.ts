import {
	createExecutionContext,
	createScheduledController,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { expect, it } from "vitest";
import worker from "../src/index";
import { startSession } from "./session";

const LINKS = "https://example.com/api/links";

it("keeps a link for the user of a session", async () => {
	const made = await exports.default.fetch(
		new Request(LINKS, {
			method: "POST",
			headers: {
				Authorization: `Bearer ${await startSession()}`,
				"Content-Type": "application/json",
			},
			body: JSON.stringify({ slug: "docs", url: "https://docs.example/" }),
		}),
	);
	expect(await made.json()).toMatchObject({ slug: "docs", userId: "ada" });
	const follow = new Request(`${LINKS}/docs`, { redirect: "manual" });
	const followed = await exports.default.fetch(follow);
	expect(followed.headers.get("Location")).toBe("https://docs.example/");
});

it("reports on the hour before", async () => {
	const scheduledTime = new Date("2026-11-22T10:05Z");
	const job = { cron: "5 * * * *", scheduledTime };
	const controller = createScheduledController(job);
	await worker.scheduled(controller, env, createExecutionContext());
	expect(await env.LINKS.get("report")).toBe("2026-11-22T09:00:00.000Z");
});

it("has a value of the secret", () => {
	expect(env.PAGER_KEY).toBe("test-PAGER_KEY");
});
