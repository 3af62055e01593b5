import { onSubmit, request } from "/demo/app.js";

onSubmit("#structured-output form", async ({ text }) => {
	const { calendar_event: event } = await request("POST", "/extract", { text });
	return {
		Name: event.name,
		Date: event.date,
		Participants: event.participants.join(", "),
	};
});
