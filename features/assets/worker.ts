import { Hono } from "hono";
import type { AppEnv } from "../../base/base/worker";

const WORKER_NAME = "{project_name}";
export const api = new Hono<AppEnv>();
api.get("/api/hello", (c) => c.json({ name: WORKER_NAME }));
