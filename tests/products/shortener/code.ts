const linkBody = z.strictObject({ slug: z.string().max(64), url: z.url() });

/** A link, as it waits for its mail. */
type Mail = { slug: string; userId: string };

app.post("/api/links", sessionOnly, async (c) => {
	const { slug, url } = await readJson(c, linkBody);
	const { userId } = c.var.session;
	await c.env.LINK.getByName(slug).save(url, userId);
	await c.env.MAIL.send({ slug, userId } satisfies Mail);
	return c.json({ slug, userId, took: Date.now() - c.var.startedAt }, 201);
});

app.get("/api/links/:slug", async (c) => {
	const link = await c.env.LINK.getByName(c.req.param("slug")).read();
	if (!link) {
		throw new ApiError(404, "no_link", "There is no such link.");
	}
	writeEvent(c.env, { userId: link.userId, event: "click", value: 1 });
	return c.redirect(link.url);
});

app.use("/api/team/*", sessionOnly);

app.get("/api/team/name", (c) => c.json({ of: c.var.session?.userId }));

app.get("/api/notes/:key", operatorOnly, async (c) =>
	c.json(await c.env.LINKS.get(c.req.param("key"))),
);

/** One short link. */
export class Link extends DurableObject<Env> {
	async save(url: string, userId: string): Promise<void> {
		this.ctx.storage.kv.put("link", { url, userId });
	}

	async read(): Promise<{ url: string; userId: string } | undefined> {
		return this.ctx.storage.kv.get("link");
	}
}

async function sendMails(
	{ messages }: MessageBatch<unknown>,
	env: Env,
): Promise<void> {
	for (const message of messages) {
		const { slug, userId } = message.body as Mail;
		await env.LINKS.put(slug, userId);
		message.ack();
	}
}

async function report(env: Env, { from }: Period): Promise<void> {
	await env.LINKS.put("report", from.toISOString());
}
