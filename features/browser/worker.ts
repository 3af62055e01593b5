import { resolve4, resolve6 } from "node:dns/promises";
import { BlockList, isIP } from "node:net";
import type {
	Browser,
	CDPEvents,
	CDPSession,
	Page,
} from "@cloudflare/puppeteer";
import type { Context } from "hono";
import { Hono } from "hono";
import { operatorOnly } from "../../base/access/worker";
import type { AppEnv } from "../../base/base/worker";
import { ApiError, logError } from "../../base/base/worker";

const PAGE_TIMEOUT_MS = 20_000;
const PAGE_TEXT_LENGTH = 100_000;

/** Address ranges that are not public, by IANA's special-purpose registries. */
const PRIVATE_NETWORKS = [
	"0.0.0.0/8", // this network
	"10.0.0.0/8", // private
	"100.64.0.0/10", // shared, with the metadata of Alibaba Cloud
	"127.0.0.0/8", // loopback
	"168.63.129.16/32", // metadata of Azure
	"169.254.0.0/16", // link-local, with the metadata of most clouds
	"172.16.0.0/12", // private
	"192.0.0.0/24", // protocols, with the metadata of Oracle Cloud
	"192.0.2.0/24", // documentation
	"192.88.99.0/24", // 6to4 relays
	"192.168.0.0/16", // private
	"198.18.0.0/15", // benchmarks
	"198.51.100.0/24", // documentation
	"203.0.113.0/24", // documentation
	"224.0.0.0/3", // multicast, reserved, broadcast
	"2001::/23", // protocols, Teredo
	"2001:db8::/32", // documentation
	"2002::/16", // 6to4
	"3fff::/20", // documentation
];

/** Top-level domains of private networks; `home.arpa` is one below. */
const PRIVATE_DOMAINS = [
	"arpa",
	"corp",
	"home",
	"internal",
	"intranet",
	"lan",
	"local",
	"localdomain",
	"localhost",
	"private",
];

/**
 * What is added to the policy of every document. It leaves a page no way to the
 * network but HTTP, which `guardBrowser` sees, and no windows or dialogs.
 */
const PAGE_POLICY = [
	"sandbox allow-forms allow-same-origin allow-scripts",
	"connect-src http: https: blob: data:", // no WebSockets
	"webrtc 'block'",
	"worker-src 'none'",
].join("; ");

const privateNetworks = new BlockList();
for (const network of PRIVATE_NETWORKS) {
	const [address = "", bits] = network.split("/");
	const family = isIP(address) === 4 ? "ipv4" : "ipv6";
	privateNetworks.addSubnet(address, Number(bits), family);
}

/** Why the browser may not ask for a URL, in its words; `null` when it may. */
type Refusal = "BlockedByClient" | "NameNotResolved" | null;

export const pages = new Hono<AppEnv>();

pages.get("/browser", operatorOnly, async (c) => {
	//% if "auth" in features
	// A link on another site must not make an operator's cookie start browsers.
	if (
		c.req.header("Sec-Fetch-Site") === "cross-site" &&
		c.req.header("Cookie") !== undefined &&
		c.var.session !== null
	) {
		throw new ApiError(
			403,
			"foreign_origin",
			"Open this from this site, or send the API token.",
		);
	}

	//% endif
	const query = c.req.query("url");
	const url = query ? URL.parse(query) : null;
	if (url === null) {
		throw new ApiError(
			400,
			"invalid_url",
			"Name the page, like ?url=https://example.com/",
		);
	}
	if (!mayBePublic(url)) {
		throw blockedUrl();
	}
	if (c.req.method === "HEAD") {
		// A browser would be started for nothing.
		return c.body(null);
	}
	const timeout = pageTimeout();
	const check = urlCheck();
	const refusal = await Promise.race([check(url), timeout]);
	if (refusal !== null) {
		throw refusal === "BlockedByClient"
			? blockedUrl()
			: failedTarget("ERR_NAME_NOT_RESOLVED");
	}
	const launch = launchBrowser(c);
	const page = Promise.race([
		launch.then((browser) => renderPage(browser, url, check)),
		timeout,
	]);
	// In the background, which lives on when the client goes away.
	c.executionCtx.waitUntil(closeBrowser(launch, page));
	return c.json(await page);
});

/**
 * Starts a browser.
 *
 * @throws ApiError 503 when none is available. Only the logs say why.
 */
async function launchBrowser<E extends AppEnv>(
	c: Context<E>,
): Promise<Browser> {
	// Loaded here, so that other requests do not pay for it.
	const { default: puppeteer } = await import("@cloudflare/puppeteer");
	try {
		return await puppeteer.launch(c.env.BROWSER);
	} catch (error) {
		logError("No browser", error, { requestId: c.var.requestId });
		// The status of Browser Run is in the message alone.
		if (String(error).includes("code: 429")) {
			throw new ApiError(
				503,
				"browser_busy",
				"All browsers are in use, or too many were started.",
				{ "Retry-After": "20" },
			);
		}
		throw new ApiError(
			503,
			"browser_unavailable",
			"No browser could be started. Local development needs the network, to download one the first time.",
		);
	}
}

/** Closes a browser, once it has started and its work is over. */
export async function closeBrowser(
	launch: Promise<Browser>,
	work: Promise<unknown>,
): Promise<void> {
	const [launched] = await Promise.allSettled([launch, work]);
	if (launched.status === "fulfilled") {
		await launched.value.close();
	}
}

async function pageTimeout(): Promise<never> {
	await scheduler.wait(PAGE_TIMEOUT_MS);
	throw new ApiError(
		504,
		"target_timeout",
		`The page was not ready within ${PAGE_TIMEOUT_MS / 1000} seconds.`,
	);
}

/**
 * Opens a page and reads it.
 *
 * @param browser A new browser, which its caller closes.
 * @param url The page's URL.
 * @param check A check of URLs that may know some names already.
 * @returns The URL after redirects, the title, and the visible text. A very long
 * one is cut.
 * @throws ApiError 400 when the page, or where it leads to, is not public; 502
 * when it cannot be loaded or is an error page.
 */
export async function renderPage(
	browser: Browser,
	url: URL,
	check = urlCheck(),
): Promise<{ url: string; title: string; text: string }> {
	const isBlocked = await guardBrowser(browser, check);
	const page = await browser.newPage();
	const [read] = await Promise.allSettled([readPage(page, url)]);
	if (isBlocked()) {
		throw blockedUrl();
	}
	if (read.status === "rejected") {
		const reason = /net::(\w+)|status \d+/.exec(String(read.reason));
		throw failedTarget(reason?.[1] ?? reason?.[0] ?? "the browser gave up");
	}
	return read.value;
}

async function readPage(page: Page, url: URL) {
	// `guardBrowser` does not see it, and no policy tells it from `fetch`.
	await page.evaluateOnNewDocument("delete globalThis.WebTransport");
	const response = await page.goto(url.href, {
		waitUntil: "networkidle2",
		timeout: 0, // There is one limit, for everything together.
	});
	if (!response?.ok()) {
		throw new Error(`status ${response?.status()}`);
	}
	// Cut in the browser, since all of it could be more than a Worker can hold.
	const cut = `.slice(0, ${PAGE_TEXT_LENGTH})`;
	const title = await page.evaluate(`document.title${cut}`);
	const text = await page.evaluate(`document.body?.innerText${cut}`);
	return {
		url: page.url(),
		// And again here, since a page can change what `slice` does there.
		title: String(title).slice(0, PAGE_TEXT_LENGTH),
		text: String(text ?? "").slice(0, PAGE_TEXT_LENGTH),
	};
}

/** Returns a check of URLs, which looks each name up once. */
function urlCheck(): (url: URL) => Promise<Refusal> {
	const lookups = new Map<string, Promise<string[]>>();
	return async (url) => {
		if (!mayBePublic(url)) {
			return "BlockedByClient";
		}
		const host = hostOf(url);
		const lookup = lookups.get(host) ?? addressesOf(host);
		lookups.set(host, lookup);
		const addresses = await lookup;
		if (addresses.length === 0) {
			return "NameNotResolved";
		}
		return addresses.every(isPublicAddress) ? null : "BlockedByClient";
	};
}

/**
 * Keeps a browser, with all of its pages, frames and workers, from asking for
 * anything but public addresses.
 *
 * @param browser A browser that has opened nothing yet.
 * @param check What decides about each URL.
 * @returns A function that tells whether its page was refused, at the start or
 * at a redirect. Other requests that are refused fail silently.
 */
async function guardBrowser(
	browser: Browser,
	check: (url: URL) => Promise<Refusal>,
): Promise<() => boolean> {
	let isBlocked = false;
	let pageFrame: string | undefined;
	// Of the whole browser: Puppeteer's interception of a page misses workers and
	// the first request of a new window.
	const devtools = await browser.target().createCDPSession();
	devtools.on("Fetch.requestPaused", async (event) => {
		const { frameId, request, requestId, resourceType } = event;
		// The first request is that for the page.
		pageFrame ??= frameId;
		try {
			if (event.responseStatusCode ?? event.responseErrorReason) {
				await passDocument(devtools, event);
				return;
			}
			// Fonts, images and media add nothing to a text.
			const errorReason = ["Font", "Image", "Media"].includes(resourceType)
				? "Aborted"
				: await check(new URL(request.url));
			isBlocked ||=
				errorReason === "BlockedByClient" &&
				resourceType === "Document" &&
				frameId === pageFrame;
			await (errorReason === null
				? devtools.send("Fetch.continueRequest", { requestId })
				: devtools.send("Fetch.failRequest", { requestId, errorReason }));
		} catch {
			// The request is gone, or stays paused: neither does harm.
		}
	});
	await devtools.send("Fetch.enable", {
		patterns: [
			{ requestStage: "Request" },
			{ requestStage: "Response", resourceType: "Document" },
		],
	});
	return () => isBlocked;
}

/** Gives a document to the page, under `PAGE_POLICY`. */
async function passDocument(
	devtools: CDPSession,
	event: CDPEvents["Fetch.requestPaused"],
): Promise<void> {
	const { requestId, responseStatusCode = 0, responseHeaders = [] } = event;
	// A failure has no status. The browser shows no body of a redirect, unless it
	// has no target.
	const isRedirect =
		[301, 302, 303, 307, 308].includes(responseStatusCode) &&
		responseHeaders.some(
			({ name, value }) => name.toLowerCase() === "location" && value.trim(),
		);
	if (responseStatusCode === 0 || isRedirect) {
		await devtools.send("Fetch.continueRequest", { requestId });
		return;
	}
	// An added policy has no effect unless the body is sent again.
	const { body } = await devtools.send("Fetch.getResponseBody", { requestId });
	await devtools.send("Fetch.fulfillRequest", {
		requestId,
		responseCode: responseStatusCode,
		responseHeaders: [
			...responseHeaders,
			{ name: "Content-Security-Policy", value: PAGE_POLICY },
		],
		body, // In base64, as it came.
	});
}

/** The error for a page that cannot be loaded, with why. */
function failedTarget(reason: string): ApiError {
	return new ApiError(
		502,
		"target_failed",
		`The page could not be read: ${reason}.`,
	);
}

function blockedUrl(): ApiError {
	return new ApiError(
		400,
		"blocked_url",
		"Only public pages can be opened: http or https, port 80 or 443, no credentials.",
	);
}

/**
 * Tells whether a URL may be public, judged by its text alone: its scheme, its
 * port, its credentials and its host. Parsing has turned every spelling of an
 * IPv4 address, such as `0x7f.1`, into the usual one.
 */
function mayBePublic(url: URL): boolean {
	const host = hostOf(url);
	const domain = /\.([a-z][a-z0-9-]*)$/.exec(host)?.[1];
	const isPublicName =
		domain !== undefined && !PRIVATE_DOMAINS.includes(domain);
	return (
		["http:", "https:"].includes(url.protocol) &&
		["", "80", "443"].includes(url.port) &&
		url.username + url.password === "" &&
		(isIP(host) ? isPublicAddress(host) : isPublicName)
	);
}

/** Returns a URL's host without IPv6's brackets and the dot of the DNS root. */
function hostOf(url: URL): string {
	return url.hostname.replace(/^\[(.*)\]$/, "$1").replace(/\.$/, "");
}

/** Returns the addresses of a host, none if it has none. */
async function addressesOf(host: string): Promise<string[]> {
	if (isIP(host)) {
		return [host];
	}
	const answers = await Promise.allSettled([resolve4(host), resolve6(host)]);
	return answers.flatMap((answer) =>
		answer.status === "fulfilled" ? answer.value.filter(isIP) : [],
	);
}

/** Tells whether an IP address, in its usual spelling, is public. */
export function isPublicAddress(address: string): boolean {
	if (isIP(address) === 4) {
		return !privateNetworks.check(address, "ipv4");
	}
	// All other IPv6 is loopback, link-local, unique local with the metadata of
	// AWS, IPv4 in IPv6, or multicast.
	const isGlobalUnicast = /^[23][0-9a-f]{3}:/i.test(address);
	return isGlobalUnicast && !privateNetworks.check(address, "ipv6");
}
