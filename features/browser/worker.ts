import { resolve4, resolve6 } from "node:dns/promises";
import { BlockList, isIP } from "node:net";
import type {
	Browser,
	CDPEvents,
	CDPSession,
	Page,
} from "@cloudflare/puppeteer";
import type { Context } from "hono";
import type { AppEnv } from "../../base/http/worker";
import { ApiError, app, logError } from "../../base/http/worker";
import { operatorOnly } from "../../base/operator/worker";

const BROWSER_TIMEOUT_MS = 20_000;
const BROWSER_TEXT_LENGTH = 100_000;

/** What is not the public internet, by IANA's registries of special addresses. */
const BROWSER_PRIVATE_NETWORKS = [
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
const BROWSER_PRIVATE_DOMAINS = [
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
 * network but HTTP, which `browserGuard` sees, and no windows or dialogs.
 */
const BROWSER_POLICY = [
	"sandbox allow-forms allow-same-origin allow-scripts",
	"connect-src http: https: blob: data:", // no WebSockets
	"webrtc 'block'",
	"worker-src 'none'",
].join("; ");

const browserPrivateNetworks = new BlockList();
for (const network of BROWSER_PRIVATE_NETWORKS) {
	const [address = "", bits] = network.split("/");
	const family = isIP(address) === 4 ? "ipv4" : "ipv6";
	browserPrivateNetworks.addSubnet(address, Number(bits), family);
}

app.get("/browser", operatorOnly, async (c) => {
	const query = c.req.query("url");
	const url = query ? URL.parse(query) : null;
	if (url === null) {
		throw new ApiError(
			400,
			"invalid_url",
			"Name the page, like ?url=https://example.com/",
		);
	}
	if (!browserAllows(url)) {
		throw browserBlocked();
	}
	const launch = browserLaunch(c);
	const page = Promise.race([
		launch.then((browser) => browserRender(browser, url)),
		browserTimeout(),
	]);
	// In the background, which lives on when the client goes away.
	c.executionCtx.waitUntil(browserClose(launch, page));
	return c.json(await page);
});

/**
 * Starts a browser.
 *
 * @throws ApiError 503 when there is none to have. Only the logs say why.
 */
async function browserLaunch(c: Context<AppEnv>): Promise<Browser> {
	// Loaded here, so that other requests do not pay for it.
	const { default: puppeteer } = await import("@cloudflare/puppeteer");
	try {
		return await puppeteer.launch(c.env.BROWSER);
	} catch (error) {
		logError("No browser", error, { requestId: c.var.requestId });
		// The status of Browser Rendering is in the message alone.
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
async function browserClose(
	launch: Promise<Browser>,
	work: Promise<unknown>,
): Promise<void> {
	const [launched] = await Promise.allSettled([launch, work]);
	if (launched.status === "fulfilled") {
		await launched.value.close();
	}
}

async function browserTimeout(): Promise<never> {
	await scheduler.wait(BROWSER_TIMEOUT_MS);
	throw new ApiError(
		504,
		"target_timeout",
		`The page was not ready within ${BROWSER_TIMEOUT_MS / 1000} seconds.`,
	);
}

/**
 * Opens a page and reads it.
 *
 * @param browser A new browser, which its caller closes.
 * @param url A URL that `browserAllows`.
 * @returns Where redirects have led to, the title, and the visible text. The
 * end of a very long one is missing.
 * @throws ApiError 400 when the page leads to an address that is not public; 502
 * when it cannot be loaded or is an error page.
 */
async function browserRender(
	browser: Browser,
	url: URL,
): Promise<{ url: string; title: string; text: string }> {
	const isBlocked = await browserGuard(browser);
	const page = await browser.newPage();
	const [read] = await Promise.allSettled([browserRead(page, url)]);
	if (isBlocked()) {
		throw browserBlocked();
	}
	if (read.status === "rejected") {
		const reason = /net::(\w+)|status \d+/.exec(String(read.reason));
		throw new ApiError(
			502,
			"target_failed",
			`The page could not be read: ${reason?.[1] ?? reason?.[0] ?? "the browser gave up"}.`,
		);
	}
	return read.value;
}

async function browserRead(page: Page, url: URL) {
	// `browserGuard` does not see it, and no policy tells it from `fetch`.
	await page.evaluateOnNewDocument("delete globalThis.WebTransport");
	const response = await page.goto(url.href, {
		waitUntil: "networkidle2",
		timeout: 0, // There is one limit, for everything together.
	});
	if (!response?.ok()) {
		throw new Error(`status ${response?.status()}`);
	}
	// Cut where it is, since all of it could be more than a Worker can hold.
	const cut = `.slice(0, ${BROWSER_TEXT_LENGTH})`;
	const title = await page.evaluate(`document.title${cut}`);
	const text = await page.evaluate(`document.body?.innerText${cut}`);
	return {
		url: page.url(),
		// And again here, since a page can change what `slice` does there.
		title: String(title).slice(0, BROWSER_TEXT_LENGTH),
		text: String(text ?? "").slice(0, BROWSER_TEXT_LENGTH),
	};
}

/**
 * Keeps a browser, with all of its pages, frames and workers, from asking for
 * anything but public addresses.
 *
 * @param browser A browser that has opened nothing yet.
 * @returns A function that tells whether its page was refused, at the start or
 * at a redirect. What a page asks for besides is left out without a word.
 */
async function browserGuard(browser: Browser): Promise<() => boolean> {
	let isBlocked = false;
	let pageFrame: string | undefined;
	const lookups = new Map<string, Promise<string[]>>();

	/** Returns the error that a request for a URL must end with, if any. */
	async function refusal(url: URL) {
		if (!browserAllows(url)) {
			return "BlockedByClient";
		}
		const host = browserHost(url);
		const lookup = lookups.get(host) ?? browserAddresses(host);
		lookups.set(host, lookup);
		const addresses = await lookup;
		if (addresses.length === 0) {
			return "NameNotResolved";
		}
		return addresses.every(browserIsPublic) ? null : "BlockedByClient";
	}

	// Of the browser itself: what Puppeteer intercepts for a page misses workers
	// and the first request of a new window.
	const devtools = await browser.target().createCDPSession();
	devtools.on("Fetch.requestPaused", async (event) => {
		const { frameId, request, requestId, resourceType } = event;
		// The first request is that for the page.
		pageFrame ??= frameId;
		try {
			if (event.responseStatusCode ?? event.responseErrorReason) {
				await browserPassOn(devtools, event);
				return;
			}
			// Fonts, images and media add nothing to a text.
			const errorReason = ["Font", "Image", "Media"].includes(resourceType)
				? "Aborted"
				: await refusal(new URL(request.url));
			isBlocked ||=
				errorReason === "BlockedByClient" &&
				resourceType === "Document" &&
				frameId === pageFrame;
			await (errorReason === null
				? devtools.send("Fetch.continueRequest", { requestId })
				: devtools.send("Fetch.failRequest", { requestId, errorReason }));
		} catch {
			// The request is gone, or stays paused for ever: neither does harm.
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

/** Gives a document to the page, under `BROWSER_POLICY`. */
async function browserPassOn(
	devtools: CDPSession,
	event: CDPEvents["Fetch.requestPaused"],
): Promise<void> {
	const { requestId, responseStatusCode = 0, responseHeaders = [] } = event;
	// A failure has no status. A redirect has no body that the browser would show,
	// and is none without a place to go to.
	const isRedirect =
		[301, 302, 303, 307, 308].includes(responseStatusCode) &&
		responseHeaders.some(
			({ name, value }) => name.toLowerCase() === "location" && value.trim(),
		);
	if (responseStatusCode === 0 || isRedirect) {
		await devtools.send("Fetch.continueRequest", { requestId });
		return;
	}
	// A policy that is added without giving the body anew has no effect.
	const { body } = await devtools.send("Fetch.getResponseBody", { requestId });
	await devtools.send("Fetch.fulfillRequest", {
		requestId,
		responseCode: responseStatusCode,
		responseHeaders: [
			...responseHeaders,
			{ name: "Content-Security-Policy", value: BROWSER_POLICY },
		],
		body, // In base64, which is how it came.
	});
}

function browserBlocked(): ApiError {
	return new ApiError(
		400,
		"blocked_url",
		"Only public pages can be opened: http or https, port 80 or 443, no credentials.",
	);
}

/**
 * Tells whether a URL is good as far as it says itself: its scheme, its port,
 * its credentials, and its host, where that is an address. Parsing has turned
 * every spelling of an IPv4 address, such as `0x7f.1`, into the usual one.
 */
function browserAllows(url: URL): boolean {
	const host = browserHost(url);
	const domain = /\.([a-z][a-z0-9-]*)$/.exec(host)?.[1];
	const isPublicName =
		domain !== undefined && !BROWSER_PRIVATE_DOMAINS.includes(domain);
	return (
		["http:", "https:"].includes(url.protocol) &&
		["", "80", "443"].includes(url.port) &&
		url.username + url.password === "" &&
		(isIP(host) ? browserIsPublic(host) : isPublicName)
	);
}

/** Returns a URL's host without IPv6's brackets and the dot of the DNS root. */
function browserHost(url: URL): string {
	return url.hostname.replace(/^\[(.*)\]$/, "$1").replace(/\.$/, "");
}

/** Returns the addresses of a host, none if it has none. */
async function browserAddresses(host: string): Promise<string[]> {
	if (isIP(host)) {
		return [host];
	}
	const answers = await Promise.allSettled([resolve4(host), resolve6(host)]);
	return answers.flatMap((answer) =>
		answer.status === "fulfilled" ? answer.value.filter(isIP) : [],
	);
}

/** Tells whether an address, in its usual spelling, is of the public internet. */
function browserIsPublic(address: string): boolean {
	if (isIP(address) === 4) {
		return !browserPrivateNetworks.check(address, "ipv4");
	}
	// The others of IPv6 are loopback, link-local, unique local with the metadata
	// of AWS, IPv4 in IPv6, and multicast.
	const isGlobalUnicast = /^[23][0-9a-f]{3}:/i.test(address);
	return isGlobalUnicast && !browserPrivateNetworks.check(address, "ipv6");
}
