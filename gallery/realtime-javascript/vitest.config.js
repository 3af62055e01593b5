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
				// Tests send more requests than a client may.
				ratelimits: {
					RATE_LIMITER: {
						namespace_id: "1",
						simple: { limit: 1_000_000, period: 60 },
					},
				},
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
