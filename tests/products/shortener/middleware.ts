declare module "hono" {
	interface ContextVariableMap {
		startedAt: number;
	}
}

app.use(async (c, next) => {
	c.set("startedAt", Date.now());
	await next();
	c.header("X-Mine", "yes");
});

app.post("/events", async (c, next) => {
	const body = await c.req.text();
	return body === '"ping"' ? c.text("pong") : next();
});
