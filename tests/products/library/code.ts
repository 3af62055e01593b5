const bookBody = z.strictObject({ isbn: z.string(), title: z.string() });

/** Adds a book and returns its id. */
async function addBook(env: Env, isbn: string, title: string): Promise<number> {
	try {
		const [book] = await hyperdriveQuery(
			env,
			(sql) => sql<{ id: number }[]>`
				INSERT INTO books (isbn, title) VALUES (${isbn}, ${title})
				RETURNING id`,
		);
		return book?.id ?? 0;
	} catch (error) {
		if (error instanceof DatabaseError && error.sqlState === "23505") {
			throw new ApiError(409, "book_exists", "This book is there already.");
		}
		throw error;
	}
}

/** Counts the books over several connections at once. */
async function countBooks(env: Env): Promise<number> {
	const counts = await hyperdriveQuery(env, (sql) =>
		Promise.all(
			Array.from(
				{ length: 8 },
				() => sql<{ count: number }[]>`SELECT count(*)::int FROM books`,
			),
		),
	);
	return Math.max(...counts.map(([row]) => row?.count ?? 0));
}

app.post("/books", operatorOnly, async (c) => {
	const { isbn, title } = await readJson(c, bookBody);
	return c.json({ id: await addBook(c.env, isbn, title) }, 201);
});

app.get("/books/count/:where", operatorOnly, async (c) => {
	switch (c.req.param("where")) {
		case "route":
			return c.json({ count: await countBooks(c.env) });
		case "object":
			return c.json({ count: await c.env.SHELF.getByName("a").count() });
		case "agent": {
			const librarian = await findAgent(c.env.Librarian, "a");
			return c.json({ count: await librarian.count() });
		}
		default: {
			const { id } = await c.env.STOCKTAKING.create();
			return c.json({ id }, 202);
		}
	}
});

app.get("/books/count/step/:id", operatorOnly, async (c) => {
	const instance = await c.env.STOCKTAKING.get(c.req.param("id"));
	return c.json(await instance.status());
});

app.get("/books/:isbn", operatorOnly, async (c) => {
	const isbn = c.req.param("isbn");
	const title = await hyperdriveQuery(c.env, async (sql) => {
		const [book] = await sql<{ title: string }[]>`
			SELECT title FROM books WHERE isbn = ${isbn}`;
		if (book === undefined) {
			throw new ApiError(404, "no_book", "There is no such book.");
		}
		return book.title;
	});
	return c.json({ title });
});

app.get("/broken/:how", operatorOnly, async (c) => {
	const how = c.req.param("how");
	const rows = await hyperdriveQuery(c.env, async (sql) => {
		switch (how) {
			case "division":
				return sql`SELECT 1 / 0`;
			case "value":
				return sql`SELECT ${"a secret of Ada"}::text::integer`;
			case "constraint":
				return sql`INSERT INTO books (isbn, title) SELECT 'twice', 'Ada' FROM generate_series(1, 2)`;
			case "mine":
				throw new RangeError("Mine");
			default:
				await sql`SELECT 1`;
				return sql`SELECT pg_sleep(11)`;
		}
	});
	return c.json({ rows });
});

/** A Durable Object that asks the database. */
export class Shelf extends DurableObject<Env> {
	async count(): Promise<number> {
		return countBooks(this.env);
	}
}

/** An agent that asks the database. */
export class Librarian extends BaseAgent<Env> {
	async count(): Promise<number> {
		return countBooks(this.env);
	}
}

/** A Workflow with a step that asks the database. */
export class Stocktaking extends WorkflowEntrypoint<Env> {
	override async run(_: unknown, step: WorkflowStep): Promise<number> {
		return step.do("count", () => countBooks(this.env));
	}
}
