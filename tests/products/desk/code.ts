type Ticket = { id: string; subject: string; status: string };

const ticketBody = z.strictObject({
	id: z.string().min(1).max(64),
	subject: z.string().min(1).max(200),
});

function readTicket(env: Env, id: string): Promise<Ticket> {
	return hyperdriveQuery(env, async (sql) => {
		const [ticket] = await sql<Ticket[]>`
			SELECT id, subject, status FROM tickets WHERE id = ${id}`;
		if (ticket === undefined) {
			throw new ApiError(404, "no_ticket", "There is no such ticket.");
		}
		return ticket;
	});
}

app.post("/tickets", operatorOnly, async (c) => {
	const { id, subject } = await readJson(c, ticketBody);
	try {
		await hyperdriveQuery(
			c.env,
			(sql) =>
				sql`INSERT INTO tickets (id, subject) VALUES (${id}, ${subject})`,
		);
	} catch (error) {
		if (error instanceof DatabaseError && error.sqlState === "23505") {
			throw new ApiError(409, "ticket_exists", "Choose another id.");
		}
		throw error;
	}
	return c.json({ id }, 201);
});

app.get("/tickets/:id", operatorOnly, async (c) =>
	c.json(await readTicket(c.env, c.req.param("id"))),
);

/** Remembers the subject of a ticket. */
export class TicketCard extends DurableObject<Env> {
	async subject(id: string): Promise<string> {
		return (await readTicket(this.env, id)).subject;
	}
}

app.get("/tickets/:id/card", operatorOnly, async (c) => {
	const id = c.req.param("id");
	return c.json({ subject: await c.env.TICKET_CARD.getByName(id).subject(id) });
});

const urgencySchema = z.strictObject({
	urgency: z.enum(["low", "high"]),
});

app.get("/tickets/:id/urgency", operatorOnly, async (c) => {
	const { subject } = await readTicket(c.env, c.req.param("id"));
	const answer = await modelObject(c.env, {
		schema: urgencySchema,
		instructions: "How urgent is this ticket?",
		text: subject,
	});
	return c.json(answer);
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
				({ id }) => readTicket(this.env, id),
			),
		];
	}
}

const supportStaff = createMiddleware<AppEnv>((c, next) => {
	if (c.req.param("name") === "closed") {
		throw new ApiError(403, "closed", "This case is closed.");
	}
	return operatorOnly(c, next);
});

app.route(
	"/",
	makeAgentRoutes("support-agent", (env) => env.SupportAgent, supportStaff),
);

const REFUND = "refund";
const refundParams = z.strictObject({ id: z.string() });

/** Asks a person whether money goes back. */
export class Refund extends WorkflowEntrypoint<Env, { id: string }> {
	override async run(
		event: Readonly<WorkflowEvent<{ id: string }>>,
		step: WorkflowStep,
	): Promise<{ subject: string; approved: boolean }> {
		const subject = await step.do("read ticket", async () => {
			const { id } = workflowsCheck(refundParams, event.payload);
			const ticket = await readTicket(this.env, id);
			return ticket.subject;
		});
		const { approved } = await workflowsDecide(step, {
			timeout: "4 hours",
			type: REFUND,
		});
		return { subject, approved };
	}
}

app.post("/refunds/:id", operatorOnly, async (c) => {
	const id = c.req.param("id");
	await c.env.REFUND.create({ id, params: { id } });
	return c.json({ id, pager: c.env.PAGER_KEY.length }, 202);
});

app.get("/refunds/:id", operatorOnly, async (c) => {
	const id = c.req.param("id");
	const { status, output } = await workflowsFind(c.env.REFUND, id);
	return c.json({ status, output });
});

const refundApproval = z.strictObject({ approved: z.boolean() });

app.post("/refunds/:id/approval", operatorOnly, async (c) => {
	const { approved } = await readJson(c, refundApproval);
	const id = c.req.param("id");
	const status = await workflowsApprove(c.env.REFUND, id, approved, REFUND);
	return c.json({ status }, 202);
});
