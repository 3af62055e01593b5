type Ticket = { id: string; subject: string };

function findTicket(env: Env, id: string): Promise<Ticket> {
	return hyperdriveQuery(env, async (sql) => {
		const [ticket] = await sql<Ticket[]>`
			SELECT id, subject FROM tickets WHERE id = ${id}`;
		if (ticket === undefined) {
			throw new ApiError(404, "no_ticket", "There is no such ticket.");
		}
		return ticket;
	});
}

const urgencySchema = z.strictObject({ urgency: z.enum(["low", "high"]) });

app.get("/tickets/:id/urgency", operatorOnly, async (c) => {
	const { subject } = await findTicket(c.env, c.req.param("id"));
	const instructions = "How urgent is this ticket?";
	return c.json(await modelObject(c.env, urgencySchema, instructions, subject));
});

/** Answers the customers of the shop. */
export class SupportAgent extends AiAgent {
	protected override instructions(): string {
		return "You help the customers of a shop. Answer briefly.";
	}

	protected override tools(): ModelTool[] {
		return [
			modelTool(
				"findTicket",
				"Finds a ticket by its id",
				z.strictObject({ id: z.string() }),
				({ id }) => findTicket(this.env, id),
			),
		];
	}
}

app.route(
	"/",
	makeAgentRoutes("support-agent", (env) => env.SupportAgent),
);

type Refunded = Ticket & { approved: boolean };

/** Asks a person whether money goes back. */
export class Refund extends WorkflowEntrypoint<Env, { ticket: string }> {
	override async run(
		event: WorkflowEvent<{ ticket: string }>,
		step: WorkflowStep,
	): Promise<Refunded> {
		const ticket = await step.do("find ticket", () =>
			findTicket(this.env, event.payload.ticket),
		);
		const { payload } = await step.waitForEvent<{ approved: boolean }>(
			"wait for a decision",
			{ type: "refund", timeout: "4 hours" },
		);
		return { ...ticket, approved: payload.approved };
	}
}

app.post("/refunds/:id", operatorOnly, async (c) => {
	const id = c.req.param("id");
	await c.env.REFUND.create({ id, params: { ticket: id } });
	return c.json({ id }, 202);
});

app.get("/refunds/:id", operatorOnly, async (c) => {
	const instance = await c.env.REFUND.get(c.req.param("id"));
	const { status, output } = await instance.status();
	return c.json({ status, output });
});

app.post("/refunds/:id/approval", operatorOnly, async (c) => {
	const payload = await readJson(c, z.strictObject({ approved: z.boolean() }));
	const instance = await c.env.REFUND.get(c.req.param("id"));
	await instance.sendEvent({ type: "refund", payload });
	return c.body(null, 204);
});
