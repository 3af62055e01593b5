import {
	createExecutionContext,
	createScheduledController,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import worker from "../src/index";

function request(path: string, init: RequestInit = {}): Promise<Response> {
	return exports.default.fetch(new Request(`https://example.com${path}`, init));
}

function add(path: string, isDraft = false): Promise<Response> {
	return request("/pages", {
		method: "POST",
		headers: {
			Authorization: `Bearer ${env.API_TOKEN}`,
			"Content-Type": "application/json",
		},
		body: JSON.stringify({ path, isDraft }),
	});
}

async function run(cron: string): Promise<void> {
	const scheduledTime = new Date("2026-11-22T03:05:00.000Z");
	const controller = createScheduledController({ cron, scheduledTime });
	await worker.scheduled(controller, env, createExecutionContext());
}

beforeEach(() => {
	vi.spyOn(console, "log").mockReturnValue();
});

afterEach(() => {
	vi.restoreAllMocks();
});

describe("a page", () => {
	it("is added once, and noted", async () => {
		expect((await add("/about")).status).toBe(201);
		expect((await add("/about")).status).toBe(409);
		const { notes } = await (await request("/notes")).json<{
			notes: { title: string }[];
		}>();
		expect(notes.map(({ title }) => title)).toEqual(["/about"]);
	});

	it("is counted once per hour, and drafts only until the night", async () => {
		await add("/draft", true);
		await run("5 * * * *");
		await run("5 * * * *");
		const hour = "2026-11-22T02:00:00.000Z";
		const reports = await (await request("/reports")).json();
		expect(reports).toEqual({ reports: [{ hour, pages: 2 }] });
		await run("30 0 * * *");
		await run("5 * * * *");
		expect(await (await request("/reports")).json()).toEqual({
			reports: [{ hour, pages: 1 }],
		});
	});
});
