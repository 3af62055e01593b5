import { app, WORKER_NAME } from "../../base/http/worker";

app.get("/api/hello", (c) => c.json({ name: WORKER_NAME }));
