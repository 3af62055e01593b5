import { onSubmit, request, send, table } from "/demo/app.js";

onSubmit("#r2 form", async ({ key, content, action }) => {
	const path = `/files/${encodeURIComponent(key)}`;
	if (action === "store") {
		await send("PUT", path, content, "text/plain;charset=utf-8");
		return `Stored ${key}.`;
	}
	if (action === "open") {
		const response = await send("GET", path);
		return response.text();
	}
	if (action === "delete") {
		await send("DELETE", path);
		return `There is no ${key}.`;
	}
	const { files } = await request("GET", "/files?limit=20");
	return table(
		files.map(({ key, size, type }) => ({
			Name: key,
			Bytes: size,
			Type: type,
		})),
	);
});
