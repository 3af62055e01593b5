import { api } from "./assets";
import { auth, readSession } from "./auth";
import { app } from "./base";
import { limitChanges } from "./rate-limit";
import { chat } from "./websockets";

// Imports above this line come from the template.

// Your imports

app.use(limitChanges);
app.use(readSession);

// Your middleware

app.get("/health", (c) => c.json({ status: "ok" }));

app.route("/", chat);
app.route("/", auth);
app.route("/", api);

export { ChatRoom } from "./websockets";

// Your code

/** @type {ExportedHandler<Env>} */
export default {
	fetch: app.fetch,
	// Your handlers
};
