import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

/** The locked routes, each with a path that it matches and that does little. */
const LOCKED: Record<string, string> = {
	//% set wanted = "locked"
	//% include "extensions/routes_with.jinja"
};
const ROUTES = Object.keys(LOCKED);

beforeEach(() => {
	// Some handlers behind locks fail here, and say so.
	vi.spyOn(console, "error").mockImplementation(() => {});
	vi.spyOn(console, "log").mockImplementation(() => {});
});

afterEach(() => {
	vi.restoreAllMocks();
});

/** Asks for a locked route, without a body, from an address that is not limited. */
function ask(route: string, headers: HeadersInit = {}): Promise<Response> {
	const [method = ""] = route.split(" ");
	const all = new Headers(headers);
	all.set("CF-Connecting-IP", crypto.randomUUID());
	const url = `https://example.com${LOCKED[route]}`;
	return exports.default.fetch(new Request(url, { method, headers: all }));
}

function bearer(token: string) {
	return { Authorization: `Bearer ${token}` };
}

describe.each(ROUTES)("%s", (route) => {
	it("is locked", async () => {
		for (const headers of [{}, bearer("wrong"), { Cookie: "auth_token=x" }]) {
			const response = await ask(route, headers);
			expect(response.status).toBe(401);
			expect(response.headers.get("WWW-Authenticate")).toBe("Bearer");
			const message = "Send `Authorization: Bearer <API_TOKEN>`.";
			expect(await response.json()).toEqual({
				error: { code: "unauthorized", message },
			});
		}
	});

	it.each(["", undefined])("stays locked with API_TOKEN %j", async (secret) => {
		const { API_TOKEN } = env;
		vi.spyOn(env, "API_TOKEN", "get").mockReturnValue(secret as string);
		for (const headers of [{}, bearer(API_TOKEN), bearer("undefined")]) {
			expect((await ask(route, headers)).status).toBe(401);
		}
	});

	it("opens for the API token", async () => {
		const response = await ask(route, bearer(env.API_TOKEN));
		expect([401, 403]).not.toContain(response.status);
	});
	//% if "auth" in features

	// Only the API token starts sessions, or else one would outlive its end.
	const isForToken = route === "POST /auth/sessions";

	/** Asks with a session, in the header and in the cookie. */
	async function askWithSession(operator: boolean): Promise<Response[]> {
		const started = await exports.default.fetch(
			new Request("https://example.com/auth/sessions", {
				method: "POST",
				headers: {
					...bearer(env.API_TOKEN),
					"CF-Connecting-IP": crypto.randomUUID(),
					"Content-Type": "application/json",
				},
				body: JSON.stringify({ userId: "ada", operator }),
			}),
		);
		const { token } = await started.json<{ token: string }>();
		const ways = [bearer(token), { Cookie: `auth_token=${token}` }];
		return Promise.all(ways.map((headers) => ask(route, headers)));
	}

	it("stays locked for a user", async () => {
		for (const response of await askWithSession(false)) {
			expect(response.status).toBe(isForToken ? 401 : 403);
			const code = isForToken ? "unauthorized" : "operator_only";
			const error = expect.objectContaining({ code });
			expect(await response.json()).toEqual({ error });
		}
	});

	it(`${isForToken ? "stays locked" : "opens"} for an operator`, async () => {
		for (const { status } of await askWithSession(true)) {
			expect([401, 403].includes(status)).toBe(isForToken);
		}
	});
	//% endif
});

describe("the API token", () => {
	const [route = ""] = ROUTES;
	const { API_TOKEN } = env;

	it.each([
		`Bearer ${API_TOKEN}`,
		`bearer ${API_TOKEN}`,
		`BEARER   ${API_TOKEN}`,
	])("counts as %j", async (Authorization) => {
		const response = await ask(route, { Authorization });
		expect([401, 403]).not.toContain(response.status);
	});

	it.each([
		API_TOKEN,
		"Bearer",
		`Bearer${API_TOKEN}`,
		`Bearer ${API_TOKEN}x`,
		`Bearer ${API_TOKEN.slice(0, -1)}`,
		`Bearer ${API_TOKEN} more`,
		`Basic ${API_TOKEN}`,
		`Basic Bearer ${API_TOKEN}`,
	])("does not count as %j", async (Authorization) => {
		expect((await ask(route, { Authorization })).status).toBe(401);
	});
});
