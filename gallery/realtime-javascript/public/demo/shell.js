// Puts the demo together: a file of HTML and a script for each panel.

import { hasApiToken, panels } from "/demo/panels.js";

document.querySelector("#access").hidden = !hasApiToken;

const html = await Promise.all(panels.map(read));
document.querySelector("main").innerHTML = html.join("");
const sections = [...document.querySelectorAll("section")];
await Promise.all(sections.map(({ id }) => import(`/demo/${id}.js`)));

/** Reads the HTML of a panel. Where the file is gone, the site's page answers. */
async function read(id) {
	const response = await fetch(`/demo/${id}.html`);
	const text = await response.text();
	return text.startsWith(`<section id="${id}"`) ? text : "";
}
