import { onSubmit, read, request } from "/demo/app.js";

const tokenField = document.querySelector("#api-token");

onSubmit("#auth form", async ({ userId, action }) => {
	if (action === "start") {
		const { expiresAt } = await request("POST", "/auth/sessions", {
			userId,
			operator: true,
		});
		if (!(await fetch("/auth/session")).ok) {
			throw new Error(
				"This browser has dropped the cookie, as Safari does on http://localhost: start dev with --local-protocol=https.",
			);
		}
		// From here on the cookie, which no script can read, does its work.
		tokenField.value = "";
		const until = new Date(expiresAt).toLocaleString();
		return `Signed in as ${userId} until ${until}, as an operator.`;
	}
	// By the cookie alone: the API token is no session.
	const method = action === "end" ? "DELETE" : "GET";
	const session = await read(fetch("/auth/session", { method }));
	return session === null ? "Signed out." : `Signed in as ${session.userId}.`;
});
