import { env } from "cloudflare:workers";
import { Hono } from "hono";
import { expect, it } from "vitest";
import { operatorOnly } from "../src/access";

const routes = new Hono().get("/", operatorOnly, (c) => c.text("in"));

function ask(token, API_TOKEN = "test-token") {
	const headers = { Authorization: `Bearer ${token}` };
	return routes.request("/", { headers }, { ...env, API_TOKEN });
}

it("lets the API token pass", async () => {
	expect((await ask("test-token")).status).toBe(200);
});

it.each(["", "wrong"])("lets nobody pass with %j", async (token) => {
	const response = await ask(token);
	expect(response.status).toBe(401);
	expect(response.headers.get("WWW-Authenticate")).toBe("Bearer");
});

it.each(["", null])("locks while the secret is %j", async (secret) => {
	expect((await ask(String(secret), secret)).status).toBe(401);
});
