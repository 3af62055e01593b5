import { onSubmit, request, table } from "/demo/app.js";

onSubmit("#hyperdrive form", async ({ schema }) => {
	const query = new URLSearchParams({ schema });
	const { tables } = await request("GET", `/db/tables?${query}`);
	return table(tables);
});
