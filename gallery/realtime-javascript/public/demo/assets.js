import { onSubmit, request } from "/demo/app.js";

onSubmit("#assets form", async () => {
	const { name } = await request("GET", "/api/hello");
	return `Hello from ${name}.`;
});
