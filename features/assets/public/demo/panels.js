// The panels of the demo. Updates write this file: to drop a panel, delete its files.

/** Whether the Worker has an API token. */
export const hasApiToken = {{ ("API_TOKEN" in project.secrets) | to_json }};

/** The features that have a panel. */
export const panels = [
	// From top to bottom
	//% for panel in (["assets"] + project.panels) | unique
	"{{ panel }}",
	//% endfor
];
