import { Hono } from "hono";
import { name } from "../package.json";

/** @type {Hono<{ Bindings: Env }>} */
export const api = new Hono();
api.get("/api/hello", (c) => c.json({ name }));
