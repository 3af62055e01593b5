import * as runtime from "cloudflare:workers";
import { Hono } from "hono";
import { expect, it } from "vitest";
//% if "auth" in features
import { startSession } from "../../features/auth/test/session";
//% endif
import * as worker from "./worker";

const { env } = runtime;
const TOKEN = { Authorization: `Bearer ${env.API_TOKEN}` };
const WRONG = { Authorization: "Bearer wrong" };

/** Routes of one's own, which take their time. */
const routes = new Hono().get("/operator", worker.operatorOnly, async (c) => {
	await new Promise((resolve) => setTimeout(resolve, 1));
	return c.json(c.var);
});

it("lets the operator pass to a route of one's own", async () => {
	const response = await routes.request("/operator", { headers: TOKEN }, env);
	expect(response.status).toBe(200);
	//% if "auth" in features
	expect(await response.json()).toMatchObject({ session: null });
	//% endif
});

it.each([{}, WRONG])("lets nobody pass with %j", async (headers) => {
	const response = await routes.request("/operator", { headers }, env);
	expect(response.status).toBe(401);
});

//% if "auth" in features
routes.get("/user", worker.sessionOnly, async (c) => {
	await new Promise((resolve) => setTimeout(resolve, 1));
	return c.json({ user: c.var.session.userId });
});

/** Starts a session, and returns the header that shows it. */
async function signIn(operator: boolean): Promise<{ Authorization: string }> {
	return { Authorization: `Bearer ${await startSession({ operator })}` };
}

it.each([false, true])(
	"lets a user pass to a route for users, an operator being %s",
	async (operator) => {
		const headers = await signIn(operator);
		const response = await routes.request("/user", { headers }, env);
		expect(response.status).toBe(200);
		expect(await response.json()).toEqual({ user: "ada" });
	},
);

it.each([{}, WRONG, TOKEN])(
	"lets nobody without a session pass to it, with %j",
	async (headers) => {
		const response = await routes.request("/user", { headers }, env);
		expect(response.status).toBe(401);
	},
);

//% endif
