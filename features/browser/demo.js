import { onSubmit, request } from "/demo/app.js";

const CHARACTERS_SHOWN = 300;

onSubmit("#browser form", async ({ url }) => {
	const query = new URLSearchParams({ url });
	const page = await request("GET", `/browser?${query}`);
	const isLong = page.text.length > CHARACTERS_SHOWN;
	return {
		Title: page.title,
		Address: page.url,
		Text: page.text.slice(0, CHARACTERS_SHOWN) + (isLong ? " …" : ""),
	};
});
