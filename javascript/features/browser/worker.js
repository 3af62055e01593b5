import { waitUntil } from "cloudflare:workers";
import { BlockList, isIP } from "node:net";
import { Hono } from "hono";
import { operatorOnly } from "../../base/access/worker";
import { ApiError, logError } from "../../base/base/worker";

const PAGE_TIMEOUT_MS = 20_000;
const MAX_TEXT_LENGTH = 100_000;

/** Private, loopback, link-local and reserved IPv4, and metadata of clouds. */
const privateNetworks = new BlockList();
for (const network of [
	...["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8"],
	...["168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"],
	...["192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3"],
]) {
	const [address = "", bits] = network.split("/");
	privateNetworks.addSubnet(address, Number(bits));
}

/** @type {Hono<{ Bindings: Env }>} */
export const pages = new Hono();

pages.get("/browser", operatorOnly, async (c) => {
	const url = URL.parse(c.req.query("url") ?? "");
	if (url === null) {
		const message = "Name the page, like ?url=https://example.com/";
		throw new ApiError(400, "invalid_url", message);
	}
	return c.json(await readPage(c.env, url));
});

/**
 * Opens a public page in a browser of its own. Returns the URL after redirects,
 * the title and the visible text; throws a 400, 502, 503 or 504.
 */
export async function readPage(env, url) {
	requirePublicUrl(url);
	// Loaded here, so that other requests do not pay for it.
	const { default: puppeteer } = await import("@cloudflare/puppeteer");
	const launch = puppeteer.launch(env.BROWSER).catch((error) => {
		logError("No browser", error);
		const message = "No browser could be started. The logs say why.";
		const headers = { "Retry-After": "20" };
		throw new ApiError(503, "browser_unavailable", message, headers);
	});
	const page = Promise.race([
		launch.then((browser) => visitPage(browser, url)),
		pageTimeout(),
	]);
	// Goes on without the client: the browser is closed in any case.
	const close = async () => (await launch).close();
	waitUntil(page.then(close, close).catch(() => {}));
	return page;
}

async function pageTimeout() {
	await scheduler.wait(PAGE_TIMEOUT_MS);
	throw new ApiError(504, "target_timeout", "The page took too long.");
}

async function visitPage(browser, url) {
	try {
		const page = await browser.newPage();
		const response = await page.goto(url.href, { waitUntil: "networkidle2" });
		// Cut in the browser: all of it could be more than a Worker can hold.
		const read = await page.evaluate(`({
			url: location.href,
			title: document.title.slice(0, ${MAX_TEXT_LENGTH}),
			text: document.body?.innerText.slice(0, ${MAX_TEXT_LENGTH}) ?? "",
		})`);
		requirePublicUrl(new URL(read.url));
		if (!response?.ok()) {
			throw new Error(`status ${response?.status()}`);
		}
		return read;
	} catch (error) {
		if (error instanceof ApiError) {
			throw error;
		}
		const known = /net::\w+|status \d+/.exec(String(error));
		const reason = known?.[0] ?? "the browser gave up";
		const message = `The page could not be read: ${reason}.`;
		throw new ApiError(502, "target_failed", message);
	}
}

/** Refuses what is not public, judged by the text of a URL: 400. */
function requirePublicUrl(url) {
	const isWeb = /^https?:$/.test(url.protocol) && /^(80|443|)$/.test(url.port);
	const hasLogin = url.username + url.password !== "";
	// The URL parser has turned `0x7f.1` and other spellings into `127.0.0.1`.
	const host = url.hostname.replace(/^\[|\]$|\.$/g, "");
	if (!isWeb || hasLogin || !isPublicHost(host)) {
		const message =
			"Only public pages can be opened: http or https, port 80 or 443, no credentials.";
		throw new ApiError(400, "blocked_url", message);
	}
}

function isPublicHost(host) {
	if (isIP(host) === 4) {
		return !privateNetworks.check(host);
	}
	if (isIP(host) === 6) {
		// 2000::/3 is public, but in 2001::/23 and 2002::/16 are IPv4 addresses.
		return /^(?!2001:1?\w{0,2}:|2002:)[23]\w{3}:/.test(host);
	}
	return /\.(?!(localhost|local|internal|arpa)$)[^.]+$/.test(host);
}
