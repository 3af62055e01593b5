import { env, exports } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import * as z from "zod";
import { parseInput } from "./worker";

/** The routes that take JSON, each with a path that it matches. */
const JSON_ROUTES: Record<string, string> = {
	//% set wanted = "json"
	//% include "extensions/routes_with.jinja"
	// Your routes with JSON
};
const MOST_BYTES = 65_536;

/** Sends a body to a route, as the operator. */
async function send(
	route: string,
	body: string,
	type = "application/json",
): Promise<{ status: number; code?: string; issues?: unknown }> {
	const [method = ""] = route.split(" ");
	const headers = {
		"Content-Type": type,
		// Where no route is locked, there is no token, and nobody asks for it.
		Authorization: `Bearer ${Object(env).API_TOKEN}`,
	};
	const url = `https://example.com${JSON_ROUTES[route]}`;
	const request = new Request(url, { method, headers, body });
	const response = await exports.default.fetch(request);
	const text = await response.text();
	const { error } = text === "" ? {} : JSON.parse(text);
	const { code, issues } = error ?? {};
	return { status: response.status, code, ...(issues && { issues }) };
}

/** Lists within lists, so many deep. */
function nested(levels: number): string {
	return "[".repeat(levels) + "]".repeat(levels);
}

describe.each(Object.keys(JSON_ROUTES))("%s", (route) => {
	//% if "rate-limit" in features
	it("is limited before its body is looked at", async () => {
		const { RATE_LIMITER } = env;
		env.RATE_LIMITER = { limit: async () => ({ success: false }) };
		const refused = await send(route, "{", "text/plain");
		env.RATE_LIMITER = RATE_LIMITER;
		expect(refused).toEqual({ status: 429, code: "rate_limited" });
	});

	//% endif
	it.each([
		"text/plain",
		"application/x-www-form-urlencoded",
		"application/jsonp",
		"text/application/json",
		"",
	])("refuses a body of type %j", async (type) => {
		const refused = await send(route, "{}", type);
		expect(refused).toEqual({ status: 415, code: "unsupported_media_type" });
	});

	it.each([
		"application/json; charset=utf-8",
		"Application/JSON",
		"application/problem+json",
	])("takes a body of type %j", async (type) => {
		expect((await send(route, "{", type)).code).toBe("invalid_json");
	});

	it("refuses a body over 64 KiB", async () => {
		const most = "{".padEnd(MOST_BYTES);
		expect((await send(route, most)).code).toBe("invalid_json");
		const refused = await send(route, `${most} `);
		expect(refused).toEqual({ status: 413, code: "body_too_large" });
	});

	it.each(["", "{", "undefined", "{'a':1}"])("refuses %j", async (body) => {
		const refused = await send(route, body);
		expect(refused).toEqual({ status: 400, code: "invalid_json" });
	});

	it("refuses what is nested more than 100 deep", async () => {
		const issues = [{ path: "", message: "May be nested 100 deep" }];
		expect(await send(route, nested(100))).not.toMatchObject({ issues });
		for (const body of [nested(101), `{"a":[0,${nested(99)}]}`]) {
			const refused = await send(route, body);
			expect(refused).toEqual({ status: 400, code: "invalid_body", issues });
		}
	});
});

describe("an input", () => {
	/** Returns what `parseInput` throws. */
	function refusal(schema: z.ZodType, input: unknown, code?: string) {
		try {
			parseInput(schema, input, code);
		} catch (error) {
			return error;
		}
		throw new Error("It was taken");
	}

	it("comes back as the schema returns it", () => {
		const schema = z.object({ name: z.string().trim() });
		expect(parseInput(schema, { name: " Ada " })).toEqual({ name: "Ada" });
	});

	it("is refused with what is wrong, and where", () => {
		const schema = z.object({ items: z.array(z.object({ id: z.int() })) });
		const input = { items: [{ id: 1 }, { id: 2.5 }] };
		expect(refusal(schema, input)).toMatchObject({
			status: 400,
			code: "invalid_body",
			issues: [
				{ path: "items.1.id", message: expect.stringMatching(/number/) },
			],
		});
		expect(refusal(schema, input, "invalid_query")).toMatchObject({
			code: "invalid_query",
		});
	});

	it("is told of twenty issues at most, 200 characters each", () => {
		const names = Array.from({ length: 21 }, (_, i) => `${i}`.padEnd(201, "x"));
		const input = Object.fromEntries(names.map((name) => [name, name]));
		const schema = z.record(z.string(), z.literal("y".repeat(300)));
		const { issues } = Object(refusal(schema, input));
		expect(issues).toHaveLength(20);
		expect(issues[0].path).toBe(names[0]?.slice(0, 200));
		expect(issues[0].message).toHaveLength(200);
	});
});
