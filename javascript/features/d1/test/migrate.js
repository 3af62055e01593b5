// Gives each file of tests a database with the schema of `migrations/`.
import { applyD1Migrations } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { inject } from "vitest";

await applyD1Migrations(env.DB, inject("migrations"));
