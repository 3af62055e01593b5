import { Hono } from "hono";
import { name } from "../package.json";
import type { AppEnv } from "./base";

export const api = new Hono<AppEnv>();
api.get("/api/hello", (c) => c.json({ name }));
