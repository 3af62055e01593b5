import { find, onSubmit, read, request, table } from "/app.js";

const tokenField = find("#api-token", HTMLInputElement);

onSubmit("#r2 form", async ({ key = "", content = "", action }) => {
	const path = `/files/${encodeURIComponent(key)}`;
	if (action === "store") {
		const { size, etag } = await store(path, content);
		return { Stored: key, Bytes: String(size), ETag: etag };
	}
	if (action === "open") {
		const response = await fetch(path);
		await read(Promise.resolve(response.clone()));
		return response.text();
	}
	if (action === "delete") {
		await request("DELETE", path);
		return `There is no ${key}.`;
	}
	const { files } = await request("GET", "/files?limit=20");
	/** @type {Record<string, string>[]} */
	const rows = [];
	for (const file of files) {
		rows.push({
			Name: file.key,
			Bytes: String(file.size),
			Type: file.type ?? "",
		});
	}
	return rows.length > 0 ? table(rows) : "There are no files.";
});

/**
 * @param {string} path
 * @param {string} content
 */
function store(path, content) {
	const headers = new Headers({ "Content-Type": "text/plain;charset=utf-8" });
	if (tokenField.value) {
		headers.set("Authorization", `Bearer ${tokenField.value}`);
	}
	return read(fetch(path, { method: "PUT", headers, body: content }));
}
