import { exports } from "cloudflare:workers";
import { expect, it } from "vitest";

it("says echo", async () => {
	const response = await exports.default.fetch("https://example.com/echo");
	expect(await response.text()).toBe("echo");
});
