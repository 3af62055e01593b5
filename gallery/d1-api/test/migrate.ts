// Gives each file of tests a database with the schema of `migrations/`.
import type { D1Migration } from "cloudflare:test";
import { applyD1Migrations } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { inject } from "vitest";

declare module "vitest" {
	export interface ProvidedContext {
		migrations: D1Migration[];
	}
}

await applyD1Migrations(env.DB, inject("migrations"));
