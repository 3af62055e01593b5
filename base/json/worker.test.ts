import { env, exports } from "cloudflare:workers";
import { describe, expect, it } from "vitest";

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
): Promise<{ status: number; code: string | undefined }> {
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
	return { status: response.status, code: error?.code };
}

/** Lists within lists, so many deep. */
function nested(levels: number): string {
	return "[".repeat(levels) + "]".repeat(levels);
}

describe.each(Object.keys(JSON_ROUTES))("%s", (route) => {
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
		const refused = await send(route, nested(102));
		expect(refused).toEqual({ status: 400, code: "invalid_body" });
	});
});
