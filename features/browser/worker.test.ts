import { env, exports } from "cloudflare:workers";
import type { Browser } from "@cloudflare/puppeteer";
import puppeteer from "@cloudflare/puppeteer";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
//% if "auth" in features
import { startSession } from "../auth/test/session";

//% endif

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const PAGE = "https://example.com/";
/** What the names in these tests resolve to; no other name does. */
const NAMES: Record<string, string[]> = {
	"example.com": ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
	"cdn.example.net": ["151.101.1.69"],
	"loopback.example.net": ["127.0.0.1"],
	"metadata.example.net": ["169.254.169.254"],
	"private.example.net": ["10.1.2.3"],
	"six.example.net": ["fd00:ec2::254"],
	"mapped.example.net": ["::ffff:10.1.2.3"],
	"mixed.example.net": ["93.184.215.14", "192.168.0.1"],
};

type Paused = {
	requestId: string;
	request: { url: string };
	resourceType: string;
	frameId: string;
	responseStatusCode?: number;
	responseErrorReason?: string;
	responseHeaders?: { name: string; value: string }[];
};
type Sent = Paused & {
	errorReason?: string;
	responseCode?: number;
	body?: string;
};
/**
 * Lets the browser ask for a URL, or get an answer, as `more` says. Resolves to
 * why it may not, or to "".
 */
type Ask = (
	url: string,
	resourceType?: string,
	more?: Partial<Paused>,
) => Promise<string>;

const launch = vi.spyOn(puppeteer, "launch");
const dns = vi.spyOn(globalThis, "fetch");
const log = vi.spyOn(console, "error");
const close = vi.fn(async () => {});
/** What pages are told, in order. */
const toldPage = vi.fn();

beforeEach(() => {
	log.mockImplementation(() => {});
	dns.mockImplementation(async (input) => {
		const { searchParams } = new URL(new Request(input).url);
		const name = searchParams.get("name") ?? "";
		const type = searchParams.get("type") === "A" ? 1 : 28;
		const Answer = (NAMES[name] ?? [])
			.filter((data) => data.includes(":") === (type === 28))
			.map((data) => ({ name, type, TTL: 60, data }));
		return Response.json({ Status: 0, Question: [{ name, type }], Answer });
	});
});

afterEach(async () => {
	// Whatever a test is about: no browser is left behind.
	const launched = await Promise.allSettled(
		launch.mock.results.map(({ value }) => value),
	);
	const running = launched.filter(({ status }) => status === "fulfilled");
	await vi.waitFor(() => expect(close).toHaveBeenCalledTimes(running.length));
	vi.resetAllMocks();
});

/** What is in a page; whether `slice` cuts there as it should. */
type Content = { url: string; title: string; text: unknown; cuts?: boolean };

/**
 * Gives the Worker browsers that show one page.
 *
 * @param visit What opening it does, given a way to ask the network. It may
 * return the status of the page; the error that it throws is that of `goto`.
 * @param content What is in the page, and leaves the browser.
 * @returns Everything that the browsers were told to do with requests.
 */
function show(
	visit: (ask: Ask, url: string) => Promise<number | null>,
	content: Content = { url: PAGE, title: "Hi", text: "Hello" },
): { method: string; params: Sent }[] {
	const told: { method: string; params: Sent }[] = [];
	launch.mockImplementation(async () => {
		let pause: (event: Paused) => void = () => {};
		const waiting = new Map<string, (reason: string) => void>();
		const devtools = {
			on: (_: string, handler: typeof pause) => {
				pause = handler;
			},
			send: async (method: string, params: Sent) => {
				if (method === "Fetch.getResponseBody") {
					return { body: "aGk=", base64Encoded: true };
				}
				told.push({ method, params });
				waiting.get(params.requestId)?.(params.errorReason ?? "");
				return {};
			},
		};
		const ask: Ask = (url, resourceType = "Document", more = {}) =>
			new Promise((resolve) => {
				const requestId = crypto.randomUUID();
				waiting.set(requestId, resolve);
				const request = { url };
				pause({ requestId, request, resourceType, frameId: "page", ...more });
			});
		const page = {
			goto: async (url: string, options: unknown) => {
				toldPage("goto", url, options);
				const status = await visit(ask, url);
				return status && { ok: () => status < 300, status: () => status };
			},
			evaluateOnNewDocument: async (code: string) => {
				toldPage("evaluateOnNewDocument", code);
			},
			evaluate: async (code: string) => {
				const value = code.includes("title") ? content.title : content.text;
				const cut = /\.slice\(0, (\d+)\)$/.exec(code)?.[1];
				return content.cuts === false || typeof value !== "string"
					? value
					: value.slice(0, Number(cut));
			},
			url: () => content.url,
		};
		return {
			target: () => ({ createCDPSession: async () => devtools }),
			newPage: async () => page,
			close,
		} as unknown as Browser;
	});
	return told;
}

/** Opens the page, and fails as a browser does if it may not. */
async function open(ask: Ask, url: string): Promise<number> {
	const reason = await ask(url);
	if (reason) {
		throw new Error(`net::ERR_${reason} at ${url}`);
	}
	return 200;
}

function get(
	url?: string,
	headers: Record<string, string> = OPERATOR,
): Promise<Response> {
	const target = new URL("https://worker.example/browser");
	if (url !== undefined) {
		target.searchParams.set("url", url);
	}
	return exports.default.fetch(new Request(target, { headers }));
}

async function errorOf(response: Response) {
	const { error } = await response.json<{
		error: { code: string; message: string };
	}>();
	return { status: response.status, ...error };
}

describe("GET /browser", () => {
	it("answers with the page's URL, title and text", async () => {
		const text =
			"Example Domain\n\nThis domain is for use in documentation examples without needing permission. Avoid use in operations.\n\nLearn more";
		show(open, { url: PAGE, title: "Example Domain", text });
		const response = await get(PAGE);
		expect(response.status).toBe(200);
		expect(await response.json()).toEqual({
			url: "https://example.com/",
			title: "Example Domain",
			text,
		});
		expect(launch).toHaveBeenCalledExactlyOnceWith(env.BROWSER);
	});

	it("takes WebTransport from the page first, and waits for its requests", async () => {
		show(open);
		await get(PAGE);
		expect(toldPage.mock.calls).toEqual([
			["evaluateOnNewDocument", "delete globalThis.WebTransport"],
			["goto", PAGE, { waitUntil: "networkidle2", timeout: 0 }],
		]);
	});

	it("answers with the URL that redirects have led to", async () => {
		const moved = "https://cdn.example.net/moved";
		show(
			async (ask, url) => {
				await open(ask, url);
				return open(ask, moved);
			},
			{ url: moved, title: "Moved", text: "Here" },
		);
		const response = await get(PAGE);
		expect(await response.json()).toMatchObject({ url: moved, text: "Here" });
	});

	const good = [
		"http://example.com",
		"https://example.com./a?b=c#d",
		"https://example.com:443/",
		"http://example.com:80/",
		"http://example.com:443/",
		" HTTPS://EXAMPLE.COM ",
		"http://93.184.215.14/",
		"http://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/",
	];

	it.each(good)("opens %j", async (url) => {
		show(open);
		expect((await get(url)).status).toBe(200);
	});

	it.each([true, false])(
		"shortens a very long text and title, if the page lets it be cut there: %j",
		async (cuts) => {
			const long = "x".repeat(100_001);
			show(open, { url: PAGE, title: long, text: long, cuts });
			const { title, text } = await (await get(PAGE)).json<{
				title: string;
				text: string;
			}>();
			expect(title).toHaveLength(100_000);
			expect(text).toHaveLength(100_000);
		},
	);

	it("answers with an empty text for a document without a body", async () => {
		show(open, { url: PAGE, title: "", text: undefined });
		expect(await (await get(PAGE)).json()).toMatchObject({ text: "" });
	});

	it("uses a browser of its own for each of many requests", async () => {
		show(open);
		const responses = await Promise.all([1, 2, 3, 4, 5].map(() => get(PAGE)));
		expect(responses.map(({ status }) => status)).toEqual(Array(5).fill(200));
		expect(launch).toHaveBeenCalledTimes(5);
	});

	it.each([PAGE, "https://nowhere.example.com/"])(
		"starts no browser and asks nobody for a HEAD of %s",
		async (url) => {
			const target = `https://worker.example/browser?url=${url}`;
			const response = await exports.default.fetch(
				new Request(target, { method: "HEAD", headers: OPERATOR }),
			);
			expect(response.status).toBe(200);
			expect(launch).not.toHaveBeenCalled();
			expect(dns).not.toHaveBeenCalled();
		},
	);

	it("takes the token from another site", async () => {
		show(open);
		const headers = { ...OPERATOR, "Sec-Fetch-Site": "cross-site" };
		expect((await get(PAGE, headers)).status).toBe(200);
	});

	//% if "auth" in features
	it("refuses a cookie of the operator's that another site has used", async () => {
		show(open);
		const token = await startSession({ operator: true });
		const cookie = { Cookie: `auth_token=${token}` };
		const bearer = { Authorization: `Bearer ${token}` };
		const statusFrom = async (site: string, headers: Record<string, string>) =>
			(await get(PAGE, { ...headers, "Sec-Fetch-Site": site })).status;
		expect(await statusFrom("same-origin", cookie)).toBe(200);
		expect(await statusFrom("none", cookie)).toBe(200);
		expect(await statusFrom("cross-site", bearer)).toBe(200);
		expect(await statusFrom("cross-site", { ...OPERATOR, ...cookie })).toBe(
			200,
		);
		expect(launch).toHaveBeenCalledTimes(4);
		expect(await statusFrom("cross-site", cookie)).toBe(403);
		expect(launch).toHaveBeenCalledTimes(4);
	});

	//% endif
	it("needs the operator's token", async () => {
		const response = await get(PAGE, { Authorization: "Bearer wrong" });
		expect(response.status).toBe(401);
		expect(response.headers.get("WWW-Authenticate")).toBe("Bearer");
		expect(launch).not.toHaveBeenCalled();
	});
});

describe("a URL that is none", () => {
	it.each([undefined, "", "example.com", "/path", "https://", "http://[::1"])(
		"is refused: %j",
		async (url) => {
			expect(await errorOf(await get(url))).toMatchObject({
				status: 400,
				code: "invalid_url",
			});
			expect(launch).not.toHaveBeenCalled();
		},
	);
});

const hostile = [
	// Other schemes
	"file:///etc/passwd",
	"ftp://example.com/",
	"gopher://example.com/",
	"data:text/html,<script>1</script>",
	"javascript:alert(1)",
	"about:blank",
	"chrome://version",
	"view-source:https://example.com/",
	"blob:https://example.com/0",
	"ws://example.com/",
	// Other ports
	"http://example.com:8080/",
	"http://example.com:22/",
	"https://example.com:8443/",
	"http://example.com:0/",
	// Credentials
	"https://user:password@example.com/",
	"https://user@example.com/",
	"https://:password@example.com/",
	"http://example.com@2130706433/",
	// Loopback and this host, in every spelling of IPv4
	"http://127.0.0.1/",
	"http://127.0.0.1:443/",
	"http://127.1/",
	"http://127.0.1/",
	"http://2130706433/",
	"http://0x7f000001/",
	"http://0x7f.0.0.1/",
	"http://0X7F.1/",
	"http://017700000001/",
	"http://0177.0.0.1/",
	"http://127.0.0.1./",
	"http://127.255.255.254/",
	"http://0/",
	"http://0.0.0.0/",
	"http://①②⑦.⓪.⓪.①/",
	"http://127。0。0。1/",
	"http://%31%32%37.0.0.1/",
	"http:\\\\127.0.0.1\\",
	"http:127.0.0.1",
	"ht\ntp://127.0.\t0.1/",
	// Private networks
	"http://10.0.0.1/",
	"http://10.255.255.255/",
	"http://0xa000001/",
	"http://012.0.0.1/",
	"http://100.64.0.1/",
	"http://172.16.0.1/",
	"http://172.31.255.255/",
	"http://192.168.1.1/",
	"http://192.168.257/",
	"http://198.18.0.1/",
	"http://224.0.0.1/",
	"http://240.0.0.1/",
	"http://255.255.255.255/",
	// Metadata of clouds
	"http://169.254.169.254/latest/meta-data/",
	"http://169.254.169.254./",
	"http://169.254.43518/",
	"http://2852039166/",
	"http://0xA9FEA9FE/",
	"http://0251.0376.0251.0376/",
	"http://[::ffff:169.254.169.254]/",
	"http://[fd00:ec2::254]/latest/meta-data/",
	"http://100.100.100.200/",
	"http://168.63.129.16/",
	"http://192.0.0.192/",
	"http://metadata.google.internal/",
	"http://metadata/",
	// IPv6
	"http://[::]/",
	"http://[::1]/",
	"http://[0:0:0:0:0:0:0:1]/",
	"http://[0000:0000:0000:0000:0000:0000:0000:0001]/",
	"http://[::127.0.0.1]/",
	"http://[::ffff:127.0.0.1]/",
	"http://[::ffff:7f00:1]/",
	"http://[0:0:0:0:0:ffff:10.0.0.1]/",
	"http://[::FFFF:0A00:0001]/",
	"http://[64:ff9b::127.0.0.1]/",
	"http://[64:ff9b:1::10.0.0.1]/",
	"http://[2001:0:a00:1::]/",
	"http://[2002:7f00:1::]/",
	"http://[2002:a9fe:a9fe::1]/",
	"http://[fc00::1]/",
	"http://[fd12:3456:789a::1]/",
	"http://[fe80::1]/",
	"http://[FE80:0:0:0:1:2:3:4]/",
	"http://[fec0::1]/",
	"http://[ff02::1]/",
	"http://[100::1]/",
	"http://[2001:db8::1]/",
	// Names that are of no public network
	"http://localhost/",
	"http://LOCALHOST/",
	"http://localhost./",
	"http://localhost../",
	"http://app.localhost/",
	"http://localhost.localdomain/",
	"http://ⓛocalhost/",
	"http://printer/",
	"http://printer.local/",
	"http://printer.local./",
	"http://router.lan/",
	"http://router.home.arpa/",
	"http://wiki.corp/",
	"http://wiki.intranet/",
	"http://vault.internal/",
];

/** The first and the last address of each network that is not public. */
const networks = [
	["0.0.0.0", "0.255.255.255"],
	["10.0.0.0", "10.255.255.255"],
	["100.64.0.0", "100.127.255.255"],
	["127.0.0.0", "127.255.255.255"],
	["168.63.129.16", "168.63.129.16"],
	["169.254.0.0", "169.254.255.255"],
	["172.16.0.0", "172.31.255.255"],
	["192.0.0.0", "192.0.0.255"],
	["192.0.2.0", "192.0.2.255"],
	["192.88.99.0", "192.88.99.255"],
	["192.168.0.0", "192.168.255.255"],
	["198.18.0.0", "198.19.255.255"],
	["198.51.100.0", "198.51.100.255"],
	["203.0.113.0", "203.0.113.255"],
	["224.0.0.0", "255.255.255.255"],
	["[::]", "[1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"],
	["[2001::]", "[2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff]"],
	["[2001:db8::]", "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]"],
	["[2002::]", "[2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"],
	["[3fff::]", "[3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff]"],
	["[4000::]", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"],
].flat();

/** The addresses beside them that are public. */
const neighbours = [
	["1.0.0.0", "9.255.255.255", "11.0.0.0"],
	["100.63.255.255", "100.128.0.0"],
	["126.255.255.255", "128.0.0.0"],
	["168.63.129.15", "168.63.129.17"],
	["169.253.255.255", "169.255.0.0"],
	["172.15.255.255", "172.32.0.0"],
	["191.255.255.255", "192.0.1.0", "192.0.1.255", "192.0.3.0"],
	["192.88.98.255", "192.88.100.0"],
	["192.167.255.255", "192.169.0.0"],
	["198.17.255.255", "198.20.0.0"],
	["198.51.99.255", "198.51.101.0"],
	["203.0.112.255", "203.0.114.0"],
	["223.255.255.255"],
	["[2000::]", "[2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"],
	["[2001:200::]", "[2001:db7:ffff:ffff:ffff:ffff:ffff:ffff]"],
	["[2001:db9::]", "[2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"],
	["[2003::]", "[3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"],
	["[3fff:1000::]", "[3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"],
].flat();

const domains = [
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

describe("the public internet", () => {
	it.each(networks)("ends before %s", async (host) => {
		expect(await errorOf(await get(`http://${host}/`))).toMatchObject({
			status: 400,
			code: "blocked_url",
		});
		expect(launch).not.toHaveBeenCalled();
	});

	it.each(neighbours)("has %s", async (host) => {
		show(open);
		expect((await get(`http://${host}/`)).status).toBe(200);
	});

	it.each(domains)("has no names that end in .%s", async (domain) => {
		expect(await errorOf(await get(`http://host.${domain}/`))).toMatchObject({
			status: 400,
			code: "blocked_url",
		});
		expect(dns).not.toHaveBeenCalled();
	});
});

describe("a URL that is not public", () => {
	it.each(hostile)("is refused before there is a browser: %j", async (url) => {
		expect(await errorOf(await get(url))).toMatchObject({
			status: 400,
			code: "blocked_url",
		});
		expect(launch).not.toHaveBeenCalled();
	});

	const zones = [
		"http://[fe80::1%25eth0]/",
		"http://[fe80::1%eth0]/",
		"http://[::1%25lo]/",
		"http://256.0.0.1/",
		"http://127.0.0.1.1/",
		"http://[::ffff:127.0.0.1.1]/",
	];

	it.each(zones)("is none, by its host: %j", async (url) => {
		expect(await errorOf(await get(url))).toMatchObject({ status: 400 });
		expect(launch).not.toHaveBeenCalled();
	});

	it.each(hostile)(
		"is refused as what a redirect leads to: %j",
		async (url) => {
			const told = show(async (ask, start) => {
				await open(ask, start);
				return open(ask, new URL(url).href);
			});
			expect(await errorOf(await get(PAGE))).toMatchObject({
				status: 400,
				code: "blocked_url",
			});
			expect(told.at(-1)?.params.errorReason).toBe("BlockedByClient");
		},
	);

	const types = ["Script", "Stylesheet", "XHR", "Fetch", "Ping", "Other"];

	it.each(types)("is dropped when a page asks for it: %s", async (type) => {
		const reasons: string[] = [];
		show(async (ask, start) => {
			const status = await open(ask, start);
			for (const url of hostile) {
				reasons.push(await ask(new URL(url).href, type));
			}
			return status;
		});
		const response = await get(PAGE);
		expect(response.status).toBe(200);
		expect(await response.json()).toMatchObject({ text: "Hello" });
		expect(reasons).toEqual(hostile.map(() => "BlockedByClient"));
	});
});

describe("a name with an address that is not public", () => {
	const names = Object.keys(NAMES).slice(2);

	it.each(names)("is refused before there is a browser: %s", async (name) => {
		expect(await errorOf(await get(`https://${name}/`))).toMatchObject({
			status: 400,
			code: "blocked_url",
		});
		expect(launch).not.toHaveBeenCalled();
	});

	it.each(names)("is refused as what a redirect leads to: %s", async (name) => {
		const told = show(async (ask, start) => {
			await open(ask, start);
			return open(ask, `https://${name}/`);
		});
		expect(await errorOf(await get(PAGE))).toMatchObject({
			status: 400,
			code: "blocked_url",
		});
		expect(told.at(-1)?.params.errorReason).toBe("BlockedByClient");
	});

	it.each(names)("is dropped from a frame: %s", async (name) => {
		let reason = "";
		show(async (ask, url) => {
			const status = await open(ask, url);
			reason = await ask(`https://${name}/`, "Document", { frameId: "frame" });
			return status;
		});
		expect((await get(PAGE)).status).toBe(200);
		expect(reason).toBe("BlockedByClient");
	});

	it.each(names)("is dropped when a page asks for it: %s", async (name) => {
		let reason = "";
		show(async (ask, url) => {
			const status = await open(ask, url);
			reason = await ask(`https://${name}/`, "Fetch");
			return status;
		});
		expect((await get(PAGE)).status).toBe(200);
		expect(reason).toBe("BlockedByClient");
	});
});

describe("what a page asks for", () => {
	it("is let through, and each name looked up once", async () => {
		const reasons: string[] = [];
		show(async (ask, url) => {
			const status = await open(ask, url);
			reasons.push(await ask("https://cdn.example.net/a.js", "Script"));
			reasons.push(await ask("https://cdn.example.net/b.css", "Stylesheet"));
			reasons.push(await ask("https://example.com/data", "Fetch"));
			return status;
		});
		expect((await get(PAGE)).status).toBe(200);
		expect(reasons).toEqual(["", "", ""]);
		expect(dns).toHaveBeenCalledTimes(4);
	});

	it.each(["Font", "Image", "Media"])(
		"is dropped when it is no text: %s",
		async (type) => {
			let reason = "";
			show(async (ask, url) => {
				const status = await open(ask, url);
				reason = await ask("https://cdn.example.net/a", type);
				return status;
			});
			expect((await get(PAGE)).status).toBe(200);
			expect(reason).toBe("Aborted");
		},
	);
});

describe("a document", () => {
	const headers = [
		{ name: "Content-Type", value: "text/html" },
		{ name: "Content-Security-Policy", value: "script-src 'self'" },
	];

	it("gets a policy beside its own, and no way around the guard", async () => {
		const told = show(async (ask, url) => {
			const status = await open(ask, url);
			await ask(url, "Document", {
				responseStatusCode: 200,
				responseHeaders: headers,
			});
			return status;
		});
		expect((await get(PAGE)).status).toBe(200);
		const { method, params } = told.at(-1) ?? {};
		expect(method).toBe("Fetch.fulfillRequest");
		expect(params).toMatchObject({ responseCode: 200, body: "aGk=" });
		expect(params?.responseHeaders?.slice(0, 2)).toEqual(headers);
		const { name, value } = params?.responseHeaders?.[2] ?? {};
		expect(name).toBe("Content-Security-Policy");
		const policy = value?.split("; ") ?? [];
		expect(policy).toContain("worker-src 'none'");
		expect(policy).toContain("webrtc 'block'");
		expect(policy).toContain("connect-src http: https: blob: data:");
		expect(policy.find((rule) => rule.startsWith("sandbox"))).not.toMatch(
			/popups|modals|downloads/,
		);
	});

	it.each([200, 300, 302, 304, 404])(
		"with the status %i and nowhere to go gets it too",
		async (responseStatusCode) => {
			const responseHeaders = [{ name: "Location", value: " " }];
			const told = show(async (ask, url) => {
				const status = await open(ask, url);
				await ask(url, "Document", { responseStatusCode, responseHeaders });
				return status;
			});
			expect((await get(PAGE)).status).toBe(200);
			expect(told.at(-1)?.method).toBe("Fetch.fulfillRequest");
		},
	);

	const elsewhere = [{ name: "location", value: "https://example.com/" }];
	const bodiless = [
		{ responseStatusCode: 302, responseHeaders: elsewhere },
		{ responseStatusCode: 308, responseHeaders: elsewhere },
		{ responseErrorReason: "ConnectionRefused" },
	];

	it.each(bodiless)("without a body is left as it is: %j", async (answer) => {
		const told = show(async (ask, url) => {
			const status = await open(ask, url);
			await ask(url, "Document", answer);
			return status;
		});
		expect((await get(PAGE)).status).toBe(200);
		expect(told.at(-1)?.method).toBe("Fetch.continueRequest");
	});
});

describe("a target that fails", () => {
	it("is a 502 that says how", async () => {
		show(async (_, url) => {
			throw new Error(`net::ERR_CONNECTION_REFUSED at ${url}`);
		});
		const error = await errorOf(await get(`${PAGE}?key=secret`));
		expect(error).toMatchObject({ status: 502, code: "target_failed" });
		expect(error.message).toContain("ERR_CONNECTION_REFUSED");
		expect(error.message).not.toContain("secret");
		expect(log).not.toHaveBeenCalled();
	});

	it("is a 502 without a browser when its name has no address", async () => {
		const error = await errorOf(await get("https://nowhere.example.com/"));
		expect(error).toMatchObject({ status: 502, code: "target_failed" });
		expect(error.message).toContain("ERR_NAME_NOT_RESOLVED");
		expect(launch).not.toHaveBeenCalled();
	});

	it("is a 502 without a browser when its name cannot be looked up", async () => {
		dns.mockRejectedValue(new TypeError("Network connection lost."));
		const error = await errorOf(await get(PAGE));
		expect(error).toMatchObject({ status: 502, code: "target_failed" });
		expect(launch).not.toHaveBeenCalled();
	});

	it("is a 502 when it redirects to a name without an address", async () => {
		const told = show(async (ask, url) => {
			await open(ask, url);
			return open(ask, "https://nowhere.example.com/");
		});
		const error = await errorOf(await get(PAGE));
		expect(error).toMatchObject({ status: 502, code: "target_failed" });
		expect(told.at(-1)?.params.errorReason).toBe("NameNotResolved");
	});

	it.each([401, 403, 404, 429, 500, 503])(
		"is a 502 when it answers %i",
		async (status) => {
			show(async () => status);
			const error = await errorOf(await get(PAGE));
			expect(error).toMatchObject({ status: 502, code: "target_failed" });
			expect(error.message).toContain(`${status}`);
		},
	);

	it("is a 502 when it opens no document", async () => {
		show(async () => null);
		expect((await get(PAGE)).status).toBe(502);
	});

	it("is a 502 when its page crashes", async () => {
		show(async () => {
			throw new Error("Page crashed!");
		});
		expect((await get(PAGE)).status).toBe(502);
	});
});

describe("a time-out", () => {
	const time = vi.spyOn(scheduler, "wait");
	let passes: () => void;

	beforeEach(() => {
		time.mockReturnValue(new Promise((resolve) => (passes = resolve)));
	});

	it("is a 504, and closes a browser that is stuck in a page", async () => {
		show(() => {
			passes();
			return new Promise(() => {});
		});
		expect(await errorOf(await get(PAGE))).toMatchObject({
			status: 504,
			code: "target_timeout",
		});
		expect(time).toHaveBeenCalledExactlyOnceWith(20_000);
	});

	it("is a 504 without a browser when its name is looked up for too long", async () => {
		dns.mockImplementation(() => {
			passes();
			return new Promise(() => {});
		});
		expect(await errorOf(await get(PAGE))).toMatchObject({
			status: 504,
			code: "target_timeout",
		});
		expect(launch).not.toHaveBeenCalled();
	});

	it("is a 504, and closes a browser that starts too late", async () => {
		const { promise, resolve } = Promise.withResolvers<Browser>();
		launch.mockImplementation(() => {
			passes();
			return promise;
		});
		expect((await get(PAGE)).status).toBe(504);
		expect(close).not.toHaveBeenCalled();
		resolve({ close } as unknown as Browser);
	});
});

describe("a browser", () => {
	it("that cannot be had is a 503 and one log line", async () => {
		launch.mockRejectedValue(
			new Error("Unable to create new browser: code: 500: message: sorry"),
		);
		const response = await get(PAGE);
		expect(response.headers.has("Retry-After")).toBe(false);
		const error = await errorOf(response);
		expect(error).toMatchObject({ status: 503, code: "browser_unavailable" });
		expect(error.message).not.toContain("sorry");
		expect(log).toHaveBeenCalledTimes(1);
		expect(JSON.parse(log.mock.calls[0]?.[0])).toMatchObject({
			message: "No browser",
			requestId: response.headers.get("X-Request-Id"),
			error: { message: expect.stringContaining("sorry") },
		});
	});

	it("over the limits of the account is a 503 that says when to retry", async () => {
		launch.mockRejectedValue(
			new Error("Unable to create new browser: code: 429: message: Rate limit"),
		);
		const response = await get(PAGE);
		expect(response.headers.get("Retry-After")).toBe("20");
		expect(await errorOf(response)).toMatchObject({
			status: 503,
			code: "browser_busy",
		});
	});

	it("that cannot be guarded opens nothing, and is closed", async () => {
		const newPage = vi.fn();
		launch.mockResolvedValue({
			target: () => ({
				createCDPSession: async () => {
					throw new Error("Not allowed");
				},
			}),
			newPage,
			close,
		} as unknown as Browser);
		expect((await get(PAGE)).status).toBe(500);
		expect(newPage).not.toHaveBeenCalled();
		expect(log).toHaveBeenCalledTimes(1);
	});
});
