import { onSubmit, request } from "/app.js";

onSubmit("#hyperdrive form", async ({ schema }) => {
	const query = new URLSearchParams({ schema });
	const { tables } = await request("GET", `/db/tables?${query}`);
	return tables.length === 0
		? "This schema has no tables."
		: tables.map((table) => `${table.schema}.${table.name}`);
});
