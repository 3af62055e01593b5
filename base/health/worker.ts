import { app } from "../http/worker";

app.get("/health", (c) => c.json({ status: "ok" }));
