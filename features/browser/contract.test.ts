import { env, exports } from "cloudflare:workers";
import type { Browser } from "@cloudflare/puppeteer";
import puppeteer from "@cloudflare/puppeteer";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { readPage } from "./worker";

const PAGE = "https://example.com/";
const READ = { url: PAGE, title: "Hi", text: "Hello" };

const launch = vi.spyOn(puppeteer, "launch");
const log = vi.spyOn(console, "error");
const close = vi.fn(async () => {});

beforeEach(() => {
	log.mockImplementation(() => {});
});

afterEach(async () => {
	// Whatever a test is about: no browser is left behind.
	const browsers = await Promise.allSettled(
		launch.mock.results.map(({ value }) => value),
	);
	const open = browsers.filter(({ status }) => status === "fulfilled");
	await vi.waitFor(() => expect(close).toHaveBeenCalledTimes(open.length));
	vi.resetAllMocks();
});

/** Makes a browser whose page opens like this, and then holds this. */
function browserOf(
	goto: (url: string) => Promise<number | null>,
	read: object = READ,
): Browser {
	const page = {
		goto: async (url: string) => {
			const status = await goto(url);
			return status && { ok: () => status < 300, status: () => status };
		},
		evaluate: async () => read,
	};
	return { newPage: async () => page, close } as unknown as Browser;
}

function get(url?: string): Promise<Response> {
	const target = new URL("https://worker.example/browser");
	if (url !== undefined) {
		target.searchParams.set("url", url);
	}
	const headers = { Authorization: `Bearer ${env.API_TOKEN}` };
	return exports.default.fetch(new Request(target, { headers }));
}

async function errorOf(response: Response) {
	const { error } = await response.json<{
		error: { code: string; message: string };
	}>();
	return { status: response.status, ...error };
}

const hostile = [
	// No web page
	"ftp://example.com/",
	"file:///etc/passwd",
	"data:text/html,hi",
	"javascript:alert(1)",
	"about:blank",
	"chrome://version/",
	"ws://example.com/",
	// Credentials and ports
	"https://user:pass@example.com/",
	"https://user@example.com/",
	"https://:pass@example.com/",
	"https://example.com@127.0.0.1/",
	"https://example.com:8080/",
	"http://example.com:22/",
	// IPv4, in many spellings
	"http://127.0.0.1/",
	"http://127.0.0.1./",
	"http://127.1/",
	"http://0x7f.1/",
	"http://0177.0.0.1/",
	"http://2130706433/",
	"http://0x7f000001/",
	"http://①②⑦.0.0.1/",
	"http://%31%32%37.0.0.1/",
	"http://0.0.0.0/",
	"http://0/",
	// Metadata
	"http://169.254.169.254/latest/meta-data/",
	"http://169.254.170.2/",
	"http://[::ffff:169.254.169.254]/",
	"http://[fd00:ec2::254]/",
	"http://100.100.100.200/",
	"http://168.63.129.16/",
	"http://192.0.0.192/",
	"http://metadata.google.internal/",
	"http://metadata/",
	// IPv6
	"http://[::]/",
	"http://[::1]/",
	"http://[0:0:0:0:0:0:0:1]/",
	"http://[::127.0.0.1]/",
	"http://[::ffff:7f00:1]/",
	"http://[0:0:0:0:0:ffff:10.0.0.1]/",
	"http://[64:ff9b::127.0.0.1]/",
	"http://[64:ff9b:1::10.0.0.1]/",
	"http://[2001:0:a00:1::]/",
	"http://[2002:7f00:1::]/",
	"http://[fc00::1]/",
	"http://[fd12:3456:789a::1]/",
	"http://[fe80::1]/",
	"http://[fec0::1]/",
	"http://[ff02::1]/",
	"http://[100::1]/",
	// Names of no public network
	"http://localhost/",
	"http://LOCALHOST./",
	"http://localhost../",
	"http://app.localhost/",
	"http://ⓛocalhost/",
	"http://printer/",
	"http://printer.local./",
	"http://router.home.arpa/",
	"http://vault.internal/",
];

/** The first and the last address of each network that is not public. */
const networks = [
	["0.0.0.0", "0.255.255.255"],
	["10.0.0.0", "10.255.255.255"],
	["100.64.0.0", "100.127.255.255"],
	["127.0.0.0", "127.255.255.255"],
	["169.254.0.0", "169.254.255.255"],
	["172.16.0.0", "172.31.255.255"],
	["192.0.0.0", "192.0.0.255"],
	["192.168.0.0", "192.168.255.255"],
	["198.18.0.0", "198.19.255.255"],
	["224.0.0.0", "255.255.255.255"],
	["[::]", "[1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"],
	["[2001::]", "[2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff]"],
	["[2002::]", "[2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"],
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
	["191.255.255.255", "192.0.1.0"],
	["192.167.255.255", "192.169.0.0"],
	["198.17.255.255", "198.20.0.0"],
	["223.255.255.255"],
	["[2000::]", "[2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"],
	["[2001:200::]", "[2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"],
	["[2003::]", "[3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"],
].flat();

describe("what is public", () => {
	it.each([
		"http://example.com",
		"https://example.com./a?b=c#d",
		"https://example.com:443/",
		"https://example.com:80/",
		"http://example.com:443/",
		" HTTPS://EXAMPLE.COM ",
		"https://local.example/",
		...neighbours.map((host) => `http://${host}/`),
	])("is opened: %j", async (url) => {
		const goto = vi.fn(async () => 200);
		launch.mockResolvedValue(browserOf(goto));
		const response = await get(url);
		expect(response.status).toBe(200);
		expect(await response.json()).toEqual(READ);
		expect(goto).toHaveBeenCalledExactlyOnceWith(new URL(url).href);
	});
});

describe("what is not public", () => {
	it.each([...hostile, ...networks.map((host) => `http://${host}/`)])(
		"starts no browser, and is not read: %j",
		async (url) => {
			const refusal = { status: 400, code: "blocked_url" };
			expect(await errorOf(await get(url))).toMatchObject(refusal);
			expect(launch).not.toHaveBeenCalled();
			// A redirect may have led there, whatever its status is.
			const read = { ...READ, url: new URL(url).href };
			launch.mockResolvedValue(browserOf(async () => 500, read));
			expect(await errorOf(await get(PAGE))).toMatchObject(refusal);
		},
	);

	it.each([
		undefined,
		"",
		"example.com",
		"http://",
		"http://[fe80::1%25eth0]/",
		"http://256.0.0.1/",
		"http://127.0.0.1.1/",
	])("may be no URL: %j", async (url) => {
		expect((await get(url)).status).toBe(400);
		expect(launch).not.toHaveBeenCalled();
	});

	it("is refused to other code too", async () => {
		await expect(
			readPage(env, new URL("http://127.0.0.1/")),
		).rejects.toMatchObject({ status: 400, code: "blocked_url" });
	});
});

describe("a target that fails", () => {
	it.each([
		["ERR_REFUSED", async () => Promise.reject(new Error("net::ERR_REFUSED"))],
		["status 403", async () => 403],
		["status 500", async () => 500],
		["the browser gave up", async () => null],
		[
			"the browser gave up",
			async () => Promise.reject(new Error("Page crashed! secret")),
		],
	])("is a 502 that says how: %s", async (reason, goto) => {
		launch.mockResolvedValue(browserOf(goto));
		const error = await errorOf(await get(`${PAGE}?key=secret`));
		expect(error).toMatchObject({ status: 502, code: "target_failed" });
		expect(error.message).toContain(reason);
		expect(error.message).not.toContain("secret");
		expect(log).not.toHaveBeenCalled();
	});
});

describe("a time-out", () => {
	const { promise: never } = Promise.withResolvers<never>();
	const late = Promise.withResolvers<Browser>();

	it.each([
		["a page", Promise.resolve(browserOf(() => never))],
		["a browser, which is closed once it comes", late.promise],
	])("of %s is a 504", async (_, browser) => {
		launch.mockReturnValue(browser);
		const wait = vi.spyOn(scheduler, "wait").mockResolvedValue();
		expect(await errorOf(await get(PAGE))).toMatchObject({
			status: 504,
			code: "target_timeout",
		});
		expect(wait).toHaveBeenCalledExactlyOnceWith(20_000);
		wait.mockRestore();
		late.resolve(browserOf(() => never));
	});
});

describe("a browser", () => {
	it("is one of its own for each of many requests", async () => {
		launch.mockResolvedValue(browserOf(async () => 200));
		const responses = await Promise.all([1, 2, 3].map(() => get(PAGE)));
		expect(responses.map(({ status }) => status)).toEqual([200, 200, 200]);
		expect(launch.mock.calls).toEqual(Array(3).fill([env.BROWSER]));
	});

	it("that cannot be had is a 503 that says when to retry", async () => {
		launch.mockRejectedValue(new Error("code: 429: message: sorry"));
		const response = await get(PAGE);
		expect(response.headers.get("Retry-After")).toBe("20");
		const error = await errorOf(response);
		expect(error).toMatchObject({ status: 503, code: "browser_unavailable" });
		expect(error.message).not.toContain("sorry");
		expect(log).toHaveBeenCalledTimes(1);
		expect(String(log.mock.lastCall)).toContain("sorry");
	});

	it("that opens no page is closed", async () => {
		const newPage = () => Promise.reject(new Error("Not allowed"));
		launch.mockResolvedValue({ newPage, close } as unknown as Browser);
		expect((await get(PAGE)).status).toBe(502);
	});
});
