import { Hono } from "hono";
import type { AppEnv } from "../../../base/base/worker";

export const echoes = new Hono<AppEnv>();

echoes.get("/echo", (c) => c.text("echo"));
