import { Hono } from "hono";
import { name } from "../../package.json";

export const api = new Hono();
api.get("/api/hello", (c) => c.json({ name }));
