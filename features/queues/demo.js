import { onSubmit, request } from "/demo/app.js";

onSubmit("#queues form", async ({ body }) => {
	const { message, requestId } = await request("POST", "/requests", body);
	return { Answer: message, Request: requestId };
});
