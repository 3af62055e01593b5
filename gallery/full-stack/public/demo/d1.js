import { onSubmit, request, table } from "/demo/app.js";

const idField = document.querySelector("#d1-use [name=id]");

onSubmit("#d1-add", async ({ title, body }) => {
	const note = await request("POST", "/notes", { title, body });
	idField.value = note.id;
	return { Note: note.id, Title: note.title, Text: note.body };
});

onSubmit("#d1-use", async ({ id, action }) => {
	if (action === "delete") {
		await request("DELETE", `/notes/${encodeURIComponent(id)}`);
		return `Note ${id} is gone.`;
	}
	const { notes } = await request("GET", "/notes?limit=10");
	return table(
		notes.map(({ id, title, createdAt }) => ({
			Note: id,
			Title: title,
			Added: new Date(createdAt).toLocaleString(),
		})),
	);
});
