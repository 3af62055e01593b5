import { exports } from "cloudflare:workers";
import { AsyncLocalStorage } from "node:async_hooks";
import type { Hono } from "hono";
import { afterAll, expect, it, vi } from "vitest";
import type { AppEnv } from "./worker";

AsyncLocalStorage.prototype.disable = () => {};
vi.doMock("hono/method-not-allowed", { spy: true });
vi.resetModules();
const { ApiError } = await import("./worker");
const { methodNotAllowed } = await import("hono/method-not-allowed");
const [options] = vi.mocked(methodNotAllowed).mock.lastCall ?? [];
const app = options?.app as unknown as Hono<AppEnv>;
afterAll(() => {
	vi.doUnmock("hono/method-not-allowed");
	vi.resetModules();
});

app.get("/probe/raw", () => new Response("raw"));
app.get("/probe/redirect", () => Response.redirect("https://other.example/"));
app.get("/probe/data", () => fetch("data:text/plain,hi"));
app.get("/probe/proxied", () =>
	exports.default.fetch("https://example.com/probe/raw"),
);
app.get("/probe/101", () => {
	const { 0: client, 1: server } = new WebSocketPair();
	server.accept();
	server.send("hello");
	return new Response(null, { status: 101, webSocket: client });
});
app.get("/probe/proxied101", () =>
	exports.default.fetch("https://example.com/probe/101", {
		headers: { Upgrade: "websocket" },
	}),
);

it.each(["raw", "redirect", "data", "proxied", "101", "proxied101"])(
	"%s",
	async (kind) => {
		const response = await exports.default.fetch(
			new Request(`https://example.com/probe/${kind}`, {
				redirect: "manual",
				headers: { Upgrade: "websocket" },
			}),
		);
		console.log(
			kind,
			response.status,
			response.webSocket,
			JSON.stringify([...response.headers]),
			response.status === 101 ? "" : await response.text(),
		);
		expect(1).toBe(1);
	},
);
