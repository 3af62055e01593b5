import { onSubmit, request, table } from "/app.js";

onSubmit("#vectorize-store", async ({ text }) => {
	await request("POST", "/documents", { text });
	return "Stored. The search finds it in some seconds.";
});

onSubmit("#vectorize-search", async ({ q = "" }) => {
	const query = new URLSearchParams({ q });
	const { matches } = await request("GET", `/search?${query}`);
	/** @type {Record<string, string>[]} */
	const rows = [];
	for (const { text, score } of matches) {
		rows.push({ Score: score.toFixed(2), Text: text });
	}
	return rows.length > 0 ? table(rows) : "There are no texts.";
});
