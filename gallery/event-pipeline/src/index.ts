import { events } from "./analytics";
import { app } from "./base";
import { nightly, quarterHourly } from "./cron";
import { deliverRequests, requests } from "./queues";
import { workflows } from "./workflows";

// Imports above this line come from the template.

// Your imports

// Your middleware

app.get("/health", (c) => c.json({ status: "ok" }));

app.get("/", (c) => {
	const routes = app.routes.filter(({ method }) => method !== "ALL");
	const list = routes.map(({ method, path }) => `${method} ${path}`);
	return c.json({ routes: [...new Set(list)] });
});

app.route("/", requests);
app.route("/", workflows);
app.route("/", events);

export { MyWorkflow } from "./workflows";

// Your code

export default {
	fetch: app.fetch,
	/** Hands a batch to the consumer of its queue. */
	async queue(batch, env, ctx) {
		const consumers: Record<string, ExportedHandlerQueueHandler<Env>> = {
			"event-pipeline-requests": deliverRequests,
			// Your queues
		};
		const consume = consumers[batch.queue];
		if (!consume) {
			throw new Error(`No consumer in src/index.ts for "${batch.queue}"`);
		}
		await consume(batch, env, ctx);
	},
	/** Runs the job of a cron expression, as in wrangler.jsonc; times are in UTC. */
	async scheduled(controller, env, ctx) {
		const jobs: Record<string, ExportedHandlerScheduledHandler<Env>> = {
			"*/15 * * * *": quarterHourly,
			"0 3 * * *": nightly,
			// Your crons
		};
		const run = jobs[controller.cron];
		if (!run) {
			throw new Error(`No job in src/index.ts for "${controller.cron}"`);
		}
		await run(controller, env, ctx);
	},
	// Your handlers
} satisfies ExportedHandler<Env>;
