import { app, WORKER_NAME } from "../http/worker";

/** The routes that `GET /` lists. */
const routes: { method: string; path: string; summary: string }[] = [
	// {routes}
	// Your routes
];

app.get("/", (c) => c.json({ name: WORKER_NAME, routes }));
