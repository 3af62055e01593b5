import { Buffer } from "node:buffer";
import { DurableObject } from "cloudflare:workers";
import type { MiddlewareHandler, Next } from "hono";
import { Hono } from "hono";
import {
	decodeBase64,
	decodeBase64Url,
	encodeBase64,
	encodeBase64Url,
} from "hono/utils/encode";
import probeZod from "zod/v4";
import type { AppEnv } from "../../../base/base/worker";
import { operatorOnly } from "../../../base/access/worker";

export const probes = new Hono<AppEnv>();

const probePass: MiddlewareHandler<AppEnv> = (_, next: Next) => next();

probes.get("/probe", probePass, (c) => {
	const bytes = decodeBase64Url(encodeBase64Url(new Uint8Array([1]).buffer));
	const text = decodeBase64(encodeBase64(bytes.buffer));
	return c.json({
		source: probeZod.string().parse(c.env.PROBE_DB.database),
		bytes: Buffer.from(text).length,
		//% if "echo" in features
		echo: true,
		//% endif
	});
});

probes.post("/probe", operatorOnly, async (c) => {
	await c.env.PROBE_QUEUE.send("probe");
	return c.body(null, 202);
});

/** Keeps what came off the queue. */
export async function probeQueue(batch: MessageBatch, env: Env): Promise<void> {
	for (const message of batch.messages) {
		await env.PROBE.getByName("probe").add(String(message.body));
		message.ack();
	}
}

/** Keeps that the schedule ran. */
export async function probeScheduled(
	controller: ScheduledController,
	env: Env,
): Promise<void> {
	await env.PROBE.getByName("probe").add(controller.cron);
}

/** The messages that came in, in order. */
export class Probe extends DurableObject<Env> {
	/** Adds one entry. */
	async add(entry: string): Promise<void> {
		await this.ctx.storage.put("seen", [...(await this.seen()), entry]);
	}

	/** Returns all entries. */
	async seen(): Promise<string[]> {
		return (await this.ctx.storage.get<string[]>("seen")) ?? [];
	}
}
