import { app } from "../../../base/http/worker";

app.get("/echo", (c) => c.text("echo"));
