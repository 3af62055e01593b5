import { env, exports } from "cloudflare:workers";
import puppeteer from "@cloudflare/puppeteer";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

const PAGE = "https://example.com/";

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

/** Gives the Worker a browser whose page opens like this. */
function show(goto, url = PAGE) {
	const page = {
		goto: async () => {
			const status = await goto();
			return { ok: () => status < 300, status: () => status };
		},
		evaluate: async () => ({ url, title: "Hi", text: "Hello" }),
	};
	const browser = { newPage: async () => page, close };
	launch.mockResolvedValue(browser);
}

async function get(url, token = env.API_TOKEN) {
	const target = new URL("https://worker.example/browser");
	target.searchParams.set("url", url);
	const headers = { Authorization: `Bearer ${token}` };
	const response = await exports.default.fetch(
		new Request(target, { headers }),
	);
	const body = await response.json();
	return { status: response.status, ...body };
}

it("reads a page, and says where redirects have led", async () => {
	show(async () => 200, "https://example.com/moved");
	expect(await get(PAGE)).toEqual({
		status: 200,
		url: "https://example.com/moved",
		title: "Hi",
		text: "Hello",
	});
});

it("needs the operator's token", async () => {
	expect(await get(PAGE, "guessed")).toMatchObject({ status: 401 });
});

it.each([
	"no URL",
	"file:///etc/passwd",
	"https://user:pass@example.com/",
	"https://example.com:8080/",
	"http://localhost/",
	"http://0x7f.1/",
	"http://10.1.2.3/",
	"http://169.254.169.254/latest/meta-data/",
	"http://[::ffff:127.0.0.1]/",
	"http://[fd00:ec2::254]/",
])("starts no browser for %s", async (url) => {
	expect(await get(url)).toMatchObject({ status: 400 });
	expect(launch).not.toHaveBeenCalled();
});

it("reads nothing private where a redirect leads there", async () => {
	show(async () => 200, "http://169.254.169.254/");
	const code = "blocked_url";
	expect(await get(PAGE)).toMatchObject({ status: 400, error: { code } });
});

it("answers 502 when the page fails", async () => {
	show(() => Promise.reject(new Error("net::ERR_FAILED")));
	expect(await get(PAGE)).toMatchObject({ status: 502 });
	show(async () => 404);
	expect(await get(PAGE)).toMatchObject({ status: 502 });
});

it("answers 504 when the page takes too long", async () => {
	const wait = vi.spyOn(scheduler, "wait").mockResolvedValue();
	show(() => new Promise(() => {}));
	expect(await get(PAGE)).toMatchObject({ status: 504 });
	wait.mockRestore();
});

it("answers 503 when no browser can be had", async () => {
	launch.mockRejectedValue(new Error("code: 429"));
	expect(await get(PAGE)).toMatchObject({ status: 503 });
	expect(log).toHaveBeenCalledTimes(1);
});
