const pageBody = z.strictObject({ path: z.string(), isDraft: z.boolean() });

app.post("/pages", operatorOnly, async (c) => {
	const { path, isDraft } = await readJson(c, pageBody);
	const { meta } = await c.env.DB.prepare(
		"INSERT INTO pages (path, is_draft) VALUES (?, ?) ON CONFLICT DO NOTHING",
	)
		.bind(path, Number(isDraft))
		.run();
	if (meta.changes === 0) {
		throw new ApiError(409, "page_exists", "This page is there already.");
	}
	// The template's table, in the same database.
	await createNote(c.env, { title: path, body: "A new page" });
	return c.json({ path }, 201);
});

app.get("/reports", async (c) => {
	const { results } = await c.env.DB.withSession()
		.prepare("SELECT hour, pages FROM reports ORDER BY hour")
		.all();
	return c.json({ reports: results });
});

/** Counts the pages, once per hour however often it runs. */
const countPages = forPeriods(60, async (env, { from }) => {
	await env.DB.prepare(
		`INSERT INTO reports (hour, pages)
		SELECT ?, count(*) FROM pages WHERE true
		ON CONFLICT (hour) DO UPDATE SET pages = excluded.pages`,
	)
		.bind(from.toISOString())
		.run();
});

/** Deletes all drafts, and logs how many there were. */
const dropDrafts = forPeriods(24 * 60, async (env) => {
	const remove = env.DB.prepare("DELETE FROM pages WHERE is_draft = 1");
	const { meta } = await remove.run();
	logInfo("Dropped drafts", { drafts: meta.changes });
});
