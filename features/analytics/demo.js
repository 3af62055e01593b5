import { onSubmit, request } from "/demo/app.js";

onSubmit("#analytics form", async ({ userId, event, value }) => {
	await request("POST", "/events", { userId, event, value: Number(value) });
	return `Recorded ${event} of ${userId}.`;
});
