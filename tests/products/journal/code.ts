const pageBody = z.strictObject({ path: plainText(100), isDraft: z.boolean() });

app.post("/pages", operatorOnly, async (c) => {
	const { path, isDraft } = await readJson(c, pageBody);
	try {
		await d1Query(c.env, (db) =>
			db
				.prepare("INSERT INTO pages (path, is_draft) VALUES (?, ?)")
				.bind(path, Number(isDraft))
				.run(),
		);
	} catch (error) {
		if (
			error instanceof D1QueryError &&
			error.sqliteCode === "SQLITE_CONSTRAINT"
		) {
			throw new ApiError(409, "page_exists", "This page is there already.");
		}
		throw error;
	}
	// The template's table, in the same database.
	await notesCreate(c.env, { title: path, body: "A new page" });
	return c.json({ path }, 201);
});

app.get("/reports", async (c) => {
	const { results } = await d1Query(c.env, (db) =>
		db
			.withSession()
			.prepare("SELECT hour, pages FROM reports ORDER BY hour")
			.all(),
	);
	return c.json({ reports: results });
});

/** Counts the pages, once per hour however often it runs. */
const countPages: CronWork = async ({ env, from }) => {
	const report = await d1Query(env, (db) =>
		db
			.prepare(
				`INSERT INTO reports (hour, pages)
				SELECT ?, count(*) FROM pages WHERE true
				ON CONFLICT (hour) DO UPDATE SET pages = excluded.pages
				RETURNING pages`,
			)
			.bind(from.toISOString())
			.first<{ pages: number }>(),
	);
	return { pages: report?.pages };
};

/** Deletes all drafts, and returns how many there were. */
async function dropDrafts(env: Env): Promise<number> {
	const { meta } = await d1Query(env, (db) =>
		db.prepare("DELETE FROM pages WHERE is_draft = 1").run(),
	);
	return meta.changes;
}
