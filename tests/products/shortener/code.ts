const linkBody = z.strictObject({ slug: plainText(64), url: z.url() });

app.post("/api/links", sessionOnly, async (c) => {
	const { slug, url } = await readJson(c, linkBody);
	const { userId } = c.var.session;
	await c.env.LINK.getByName(slug).save(url, userId);
	await c.env.MAIL.send({ slug, userId });
	return c.json({ slug, userId, took: Date.now() - c.var.startedAt }, 201);
});

app.use("/api/broken", async () => {});

app.use("/api/basic", async () => {
	const headers = { "WWW-Authenticate": "Basic" };
	const res = new Response("Unauthorized", { status: 401, headers });
	throw new HTTPException(401, { res });
});

app.all("/api/*", async (c, next) => {
	if (c.req.path === "/api/any") {
		return c.text("any");
	}
	return next();
});

app.get("/api/team/name", (c) => c.json({ of: c.var.session?.userId }));

app.get("/api/links/:slug", async (c) => {
	const link = await c.env.LINK.getByName(c.req.param("slug")).read();
	if (link === null) {
		throw new ApiError(404, "no_link", "There is no such link.");
	}
	analyticsWrite(c.env, { userId: link.userId, event: "click" });
	return c.redirect(link.url);
});

app.post("/api/links/:slug/report", operatorOnly, async (c) => {
	const requestId = await queuesSend(c.env, { slug: c.req.param("slug") });
	return c.json({ requestId }, 202);
});

app.get("/api/mails/:slug", operatorOnly, async (c) =>
	c.json({ to: await c.env.LINKS.get(c.req.param("slug")) }),
);

/** One short link. */
export class Link extends DurableObject<Env> {
	async save(url: string, userId: string): Promise<void> {
		await this.ctx.storage.put("link", { url, userId });
	}

	async read(): Promise<{ url: string; userId: string } | null> {
		const link = await this.ctx.storage.get<{ url: string; userId: string }>(
			"link",
		);
		return link ?? null;
	}
}

const mailBody = z.object({ slug: z.string(), userId: z.string() });

const sendMails: QueueConsumer = async (batch, env) => {
	for (const message of batch.messages) {
		const { slug, userId } = mailBody.parse(message.body);
		await env.LINKS.put(slug, userId);
		message.ack();
	}
};

async function sendReport(
	controller: ScheduledController,
	env: Env,
): Promise<void> {
	logInfo("Report", { pager: env.PAGER_KEY.length });
	await env.LINKS.put("report", controller.cron);
}
