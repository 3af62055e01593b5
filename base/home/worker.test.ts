import { exports } from "cloudflare:workers";
import { describe, expect, it } from "vitest";

describe("the list of routes", () => {
	it("names the Worker, and each route with its method and purpose", async () => {
		const response = await exports.default.fetch("https://example.com/");
		expect(response.status).toBe(200);
		expect(await response.json()).toEqual({
			name: "{project_name}",
			routes: expect.arrayContaining([
				{
					method: "GET",
					path: "/health",
					summary: "Whether the Worker runs",
				},
			]),
		});
	});
});
