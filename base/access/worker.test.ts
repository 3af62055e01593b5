import { env, exports } from "cloudflare:workers";
import { afterEach, describe, expect, it } from "vitest";
//% if "auth" in features
import { startSession } from "../../features/auth/test/session";

//% endif

const TOKEN = env.API_TOKEN;

/** The locked routes, each with a path that it matches and that does little. */
const LOCKED: Record<string, string> = {
	//% set wanted = "locked"
	//% include "extensions/routes_with.jinja"
	// Your locked routes
};
const ROUTES = Object.entries(LOCKED);

//% if "rate-limit" in features
const LIMITER = env.RATE_LIMITER;

/** Lets nobody pass who counts as one of these; returns what is counted. */
function limit(...full: string[]): string[] {
	const counted: string[] = [];
	env.RATE_LIMITER = {
		limit: async ({ key = "" }) => {
			counted.push(key);
			return { success: !full.includes(key) };
		},
	};
	return counted;
}

//% endif
afterEach(() => {
	env.API_TOKEN = TOKEN;
	//% if "rate-limit" in features
	env.RATE_LIMITER = LIMITER;
	//% endif
});

/** Asks for a locked route, without a body. */
function ask(route: string, headers: HeadersInit = {}): Promise<Response> {
	const [method = ""] = route.split(" ");
	const url = `https://example.com${LOCKED[route]}`;
	return exports.default.fetch(new Request(url, { method, headers }));
}

function bearer(token: string) {
	return { Authorization: `Bearer ${token}` };
}

describe.each(ROUTES)("%s", (route) => {
	it.each([{}, bearer("wrong")])("is locked for %j", async (headers) => {
		const response = await ask(route, headers);
		expect(response.status).toBe(401);
		expect(response.headers.get("WWW-Authenticate")).toBe("Bearer");
		expect(await response.json()).toEqual({
			error: {
				code: "unauthorized",
				message: "Send `Authorization: Bearer <API_TOKEN>`.",
			},
		});
	});

	it.each(["", undefined])("stays locked with API_TOKEN %j", async (secret) => {
		Object.assign(env, { API_TOKEN: secret });
		expect((await ask(route)).status).toBe(401);
		expect((await ask(route, bearer(TOKEN))).status).toBe(401);
		expect((await ask(route, bearer("undefined"))).status).toBe(401);
	});

	//% if "rate-limit" in features
	it.each([{}, bearer("wrong"), bearer(TOKEN)])(
		"is limited before the token is looked at, with %j",
		async (headers) => {
			const counted = limit("address unknown");
			const response = await ask(route, headers);
			expect(response.status).toBe(429);
			expect(response.headers.get("Retry-After")).toBe("60");
			expect(counted).toEqual(["address unknown"]);
		},
	);

	it("counts a request once, and the API token as nobody", async () => {
		const counted = limit();
		await ask(route, bearer(TOKEN));
		expect(counted).toEqual(["address unknown"]);
	});

	//% endif
	it("opens for the API token", async () => {
		const response = await ask(route, bearer(TOKEN));
		expect([401, 403]).not.toContain(response.status);
	});
});

describe("the API token", () => {
	const [route = ""] = Object.keys(LOCKED);

	it.each([`bearer ${TOKEN}`, `BEARER   ${TOKEN}`])(
		"counts as %j",
		async (header) => {
			const response = await ask(route, { Authorization: header });
			expect([401, 403]).not.toContain(response.status);
		},
	);

	it.each([
		TOKEN,
		"Bearer",
		`Bearer${TOKEN}`,
		`Bearer ${TOKEN}x`,
		`Bearer ${TOKEN} more`,
		`Basic ${TOKEN}`,
		`Basic Bearer ${TOKEN}`,
	])("does not count as %j", async (header) => {
		const response = await ask(route, { Authorization: header });
		expect(response.status).toBe(401);
	});
});

//% if "auth" in features
describe("a session", () => {
	/** Starts a session, and returns the two ways to show it. */
	async function start(operator: boolean): Promise<HeadersInit[]> {
		const token = await startSession({ operator });
		return [bearer(token), { Cookie: `auth_token=${token}` }];
	}

	const [forToken, forOperators] = [true, false].map((isForToken) =>
		Object.keys(LOCKED).filter(
			(route) => (LOCKED[route] === "/auth/sessions") === isForToken,
		),
	);

	it.each(forOperators ?? [])("of a user does not open %s", async (route) => {
		for (const headers of await start(false)) {
			const response = await ask(route, headers);
			expect(response.status).toBe(403);
			expect(await response.json()).toEqual({
				error: { code: "operator_only", message: expect.any(String) },
			});
		}
	});

	it.each(forOperators ?? [])("of an operator opens %s", async (route) => {
		for (const headers of await start(true)) {
			const response = await ask(route, headers);
			expect([401, 403]).not.toContain(response.status);
		}
	});

	//% if "rate-limit" in features
	it.each(forOperators ?? [])(
		"shares the limit of its user, wherever that is, on %s",
		async (route) => {
			const [token] = await start(true);
			const [, cookie] = await start(false);
			const counted = limit("user ada");
			for (const [session, address] of [
				[token, "203.0.113.7"],
				[cookie, "203.0.113.8"],
			] as const) {
				const headers = new Headers(session);
				headers.set("CF-Connecting-IP", address);
				expect((await ask(route, headers)).status).toBe(429);
			}
			expect(counted).toEqual([
				"address 203.0.113.7",
				"user ada",
				"address 203.0.113.8",
				"user ada",
			]);
		},
	);

	//% endif
	it.each(forToken ?? [])("of an operator does not open %s", async (route) => {
		for (const headers of await start(true)) {
			expect((await ask(route, headers)).status).toBe(401);
		}
	});
});
//% endif
