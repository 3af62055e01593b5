// The panels of the demo. Updates write this file: to drop a panel, delete its files.

/** Whether the Worker has an API token. */
export const hasApiToken = true;

/** The features that have a panel. */
export const panels = [
	// From top to bottom
	"assets",
	"websockets",
	"auth",
];
