import { onSubmit, request } from "/app.js";

onSubmit("#browser form", async ({ url }) => {
	const query = new URLSearchParams({ url });
	const page = await request("GET", `/browser?${query}`);
	return { Address: page.url, Title: page.title, Text: page.text };
});
