import { api } from "./assets";
import { auth, readSession } from "./auth";
import { app } from "./base";
import { notes } from "./d1";
import { files } from "./r2";
import { limitChanges } from "./rate-limit";

// Imports above this line come from the template.

// Your imports

app.use(limitChanges);
app.use(readSession);

// Your middleware

app.get("/health", (c) => c.json({ status: "ok" }));

app.route("/", auth);
app.route("/", api);
app.route("/", notes);
app.route("/", files);

// Your code

export default {
	fetch: app.fetch,
	// Your handlers
} satisfies ExportedHandler<Env>;
