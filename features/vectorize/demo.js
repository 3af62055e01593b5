import { onSubmit, request, table } from "/demo/app.js";

onSubmit("#vectorize-store", async ({ text }) => {
	await request("POST", "/documents", { text });
	return "Stored. The search finds it in some seconds.";
});

onSubmit("#vectorize-search", async ({ q }) => {
	const query = new URLSearchParams({ q });
	const { matches } = await request("GET", `/search?${query}`);
	return table(
		matches.map(({ text, score }) => ({ Score: score.toFixed(2), Text: text })),
	);
});
