import { Hono } from "hono";
import type { AppEnv } from "../../base/base/worker";
import { name } from "../../package.json";

export const api = new Hono<AppEnv>();
api.get("/api/hello", (c) => c.json({ name }));
