import { onSubmit, request } from "/demo/app.js";

onSubmit("#alarms form", async ({ userId, everySeconds, action }) => {
	const path = `/reminders/${encodeURIComponent(userId)}`;
	if (action === "cancel") {
		await request("DELETE", path);
		return `${userId} has no reminder.`;
	}
	if (action === "start") {
		await request("PUT", path, { everySeconds: Number(everySeconds) });
	}
	const reminder = await request("GET", path);
	return {
		User: userId,
		Interval: `${reminder.everySeconds} s`,
		Next: new Date(reminder.next).toLocaleString(),
		Fired: String(reminder.fired),
	};
});
