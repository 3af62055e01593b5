// Puts the demo together: a file of HTML and a script for each panel.

import { element, find } from "/app.js";
import { hasApiToken, panels } from "/demo/panels.js";

find("#access", HTMLElement).hidden = !hasApiToken;

const html = await Promise.all(panels.map(read));
const main = find("main", HTMLElement);
main.innerHTML = html.join("");

const sections = [...main.querySelectorAll("section")];
find("nav", HTMLElement).append(element("ul", ...sections.map(entry)));
if (location.hash) {
	// The panel was not there yet when the browser looked for it.
	location.replace(location.hash);
}
await Promise.all(sections.map(connect));

/**
 * Reads the HTML of a panel. Where the file is gone, the site's page answers.
 *
 * @param {string} id
 * @returns {Promise<string>} Empty when there is no such panel.
 */
async function read(id) {
	const response = await fetch(`/demo/${id}.html`);
	const text = await response.text();
	return text.startsWith(`<section id="${id}"`) ? text : "";
}

/**
 * Loads the script of a panel. Until then its forms would not reach the Worker, so
 * that nobody can use them.
 *
 * @param {HTMLElement} section
 */
async function connect(section) {
	section.inert = true;
	await import(`/demo/${section.id}.js`);
	section.inert = false;
}

/**
 * Makes the entry of a panel in the navigation.
 *
 * @param {HTMLElement} section
 * @returns {HTMLLIElement}
 */
function entry(section) {
	const title = section.querySelector("h2")?.textContent ?? section.id;
	const link = Object.assign(element("a", title), { href: `#${section.id}` });
	return element("li", link);
}
