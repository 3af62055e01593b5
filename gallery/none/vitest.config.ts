import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

export default defineConfig({
	plugins: [
		cloudflareTest({
			remoteBindings: false,
			wrangler: { configPath: "./wrangler.jsonc" },
			miniflare: {
				// Tests count on these, whatever wrangler.jsonc and .dev.vars say.
				bindings: {
					ALLOWED_ORIGINS: "",
				},
			},
		}),
	],
	test: { testTimeout: 20_000 },
});
