import { app } from "../../base/http/worker";

app.get("/api/hello", (c) => c.json({ name: "{project_name}" }));
