import { onSubmit, request } from "/demo/app.js";

const idField = document.querySelector("#workflows [name=id]");

onSubmit("#workflows-start", async ({ email }) => {
	const metadata = { from: "the demo" };
	const { id } = await request("POST", "/workflows", { email, metadata });
	idField.value = id;
	return "Started. It waits for a decision for seven days.";
});

onSubmit("#workflows-decide", async ({ id, action }) => {
	const path = `/workflows/${encodeURIComponent(id)}`;
	if (action !== "show") {
		await request("POST", `${path}/approval`, {
			approved: action === "approve",
		});
		return "Sent. The first decision counts.";
	}
	const { status, output, error } = await request("GET", path);
	const decision = output?.approved ? "approved" : "rejected";
	return {
		Status: status,
		Decision: output === null ? "none yet" : decision,
		...(error && { Error: error.message }),
	};
});
