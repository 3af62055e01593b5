import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

// Wrangler would name .dev.vars once per file of tests.
process.env.WRANGLER_LOG ??= "warn";

export default defineConfig({
	plugins: [
		cloudflareTest({
			remoteBindings: false,
			wrangler: { configPath: "./wrangler.jsonc" },
			miniflare: {
				// Tests count on these, whatever wrangler.jsonc and .dev.vars say.
				bindings: {
					API_TOKEN: "test-API_TOKEN",
					ALLOWED_ORIGINS: "",
				},
			},
		}),
	],
	test: { testTimeout: 20_000 },
});
