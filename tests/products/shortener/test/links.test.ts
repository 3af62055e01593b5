import {
	createExecutionContext,
	createScheduledController,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { expect, it } from "vitest";
import worker from "../src/index";

function request(path: string, init: RequestInit = {}): Promise<Response> {
	return exports.default.fetch(new Request(`https://example.com${path}`, init));
}

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const JSON_TYPE = { "Content-Type": "application/json" };

async function signIn(userId: string): Promise<Record<string, string>> {
	const response = await request("/auth/sessions", {
		method: "POST",
		headers: { ...OPERATOR, ...JSON_TYPE },
		body: JSON.stringify({ userId }),
	});
	const { token } = await response.json<{ token: string }>();
	return { Authorization: `Bearer ${token}` };
}

it("keeps a link for the user of a session", async () => {
	const made = await request("/api/links", {
		method: "POST",
		headers: { ...(await signIn("ada")), ...JSON_TYPE },
		body: JSON.stringify({ slug: "docs", url: "https://docs.example/" }),
	});
	expect(made.status).toBe(201);
	expect(await made.json()).toMatchObject({ slug: "docs", userId: "ada" });
	const followed = await request("/api/links/docs", { redirect: "manual" });
	expect(followed.status).toBe(302);
	expect(followed.headers.get("Location")).toBe("https://docs.example/");
});

it("runs the report of a Monday", async () => {
	const controller = createScheduledController({ cron: "0 6 * * 1" });
	await worker.scheduled(controller, env, createExecutionContext());
	expect(await env.LINKS.get("report")).toBe("0 6 * * 1");
});

it("has a value of the secret", () => {
	expect(env.PAGER_KEY).toBe("test-PAGER_KEY");
});
