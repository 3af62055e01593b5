import { aiChat } from "./ai";
import { app } from "./base";
import { files } from "./r2";
import { limitChanges } from "./rate-limit";
import { documents } from "./vectorize";

// Imports above this line come from the template.

// Your imports

app.use(limitChanges);

// Your middleware

app.get("/health", (c) => c.json({ status: "ok" }));

app.get("/", (c) => {
	const routes = app.routes.filter(({ method }) => method !== "ALL");
	const list = routes.map(({ method, path }) => `${method} ${path}`);
	return c.json({ routes: [...new Set(list)] });
});

app.route("/", aiChat);
app.route("/", files);
app.route("/", documents);

// Your code

export default {
	fetch: app.fetch,
	// Your handlers
} satisfies ExportedHandler<Env>;
