import { waitUntil } from "cloudflare:workers";
import { BlockList, isIP } from "node:net";
import type { Browser } from "@cloudflare/puppeteer";
import type { Context } from "hono";
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { createMiddleware } from "hono/factory";
import { HTTPException } from "hono/http-exception";
import { methodNotAllowed } from "hono/method-not-allowed";
import { secureHeaders } from "hono/secure-headers";
import { timingSafeEqual } from "hono/utils/buffer";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { ZodType } from "zod";

// Imports above this line come from the template.

// Your imports

// #region base
/** Hono's types for this Worker: its bindings, and what it keeps in `c.var`. */
export type AppEnv = { Bindings: Env; Variables: { requestId: string } };

const app = new Hono<AppEnv>();

/** A problem of an input, and its place, such as `items.0.name`. */
type Issue = { path: string; message: string };

/** An error that the client may see: throw it from a route. */
export class ApiError extends HTTPException {
	code: string;
	headers: Record<string, string>;
	issues: Issue[] | undefined;

	constructor(
		status: ContentfulStatusCode,
		code: string,
		message: string,
		headers: Record<string, string> = {},
		issues?: Issue[],
	) {
		super(status, { message });
		this.code = code;
		this.headers = headers;
		this.issues = issues;
	}

	override getResponse(): Response {
		const { status, code, message, headers, issues } = this;
		const body = errorBody(code, message, { issues });
		return Response.json(body, { status, headers });
	}
}

/** The body of every error. */
function errorBody(code: string, message: string, more: object = {}) {
	return { error: { code, message, ...more } };
}

/** Writes one JSON line to the logs. Never give it a secret. */
export function logInfo(message: string, fields: object = {}): void {
	console.log(JSON.stringify({ level: "info", message, ...fields }));
}

/** Writes one JSON line to the logs, as an error with its causes. */
export function logError(message: string, error: unknown, fields = {}): void {
	const line = { level: "error", message, ...fields, error: describe(error) };
	console.error(JSON.stringify(line));
}

function describe(error: unknown): unknown {
	if (!(error instanceof Error)) {
		return error && String(error);
	}
	const { message, stack, cause } = error;
	const { name } = error.name === "Error" ? error.constructor : error;
	return { name, message, stack, cause: describe(cause) };
}

/** Tells whether pages of another site may call this Worker. */
export function isAllowedOrigin(env: Env, origin: string): boolean {
	return origin !== "" && env.ALLOWED_ORIGINS.split(/[, ]+/).includes(origin);
}

// Every request goes through these, in this order.
app.use(
	async (c, next) => {
		// Never the client's, which need not be unique.
		c.set("requestId", crypto.randomUUID());
		await next();
		// Mutable by now: `cors` has copied the response.
		const { headers } = c.res;
		headers.set("X-Request-Id", c.var.requestId);
		if (!headers.has("Cache-Control")) {
			headers.set("Cache-Control", "no-store");
		}
	},
	secureHeaders({
		contentSecurityPolicy: {
			defaultSrc: ["'none'"],
			frameAncestors: ["'none'"],
		},
		strictTransportSecurity: "max-age=31536000",
		overwrite: false, // A route keeps what it has set.
	}),
	cors({
		origin: (origin, c) => (isAllowedOrigin(c.env, origin) ? origin : null),
		credentials: true,
		exposeHeaders: ["ETag", "Retry-After", "X-Request-Id"],
		maxAge: 600,
	}),
	methodNotAllowed({
		app,
		onMethodNotAllowed: (c, methods) => {
			const Allow = methods.join(", ");
			const message = `This route takes ${Allow}.`;
			return c.json(errorBody("method_not_allowed", message), 405, { Allow });
		},
	}),
);

app.notFound((c) => c.json(errorBody("not_found", "No such route."), 404));

app.onError((error, c) => {
	// An ApiError, or what Hono's own middleware throws, such as `basicAuth`.
	if (error instanceof HTTPException && error.status !== 500) {
		return error.getResponse();
	}
	const { requestId } = c.var;
	// The path alone: a query may hold what must not be logged.
	const { method, path } = c.req;
	logError("Unexpected error", error, { requestId, method, path });
	const message = "Something went wrong. The logs know this requestId.";
	return c.json(errorBody("internal_error", message, { requestId }), 500);
});

/** Checks any input: the 400 that it throws lists what is wrong, and where. */
export function parseInput<Output>(
	schema: ZodType<Output>,
	input: unknown,
	code = "invalid_body",
): Output {
	const { data, error } = schema.safeParse(input);
	if (!error) {
		return data;
	}
	// Names of keys may be the client's, and long.
	const issues = error.issues.slice(0, 20).map(({ path, message }) => ({
		path: path.join(".").slice(0, 200),
		message: message.slice(0, 200),
	}));
	const message = "Correct what `issues` lists, and send it again.";
	throw new ApiError(400, code, message, {}, issues);
}

const limitJson = bodyLimit({
	maxSize: 64 * 1024,
	onError: () => {
		const message = "JSON bodies may have at most 64 KiB.";
		throw new ApiError(413, "body_too_large", message);
	},
});

/** Reads a JSON body and checks it: throws a 415, 413 or 400. */
export async function readJson<E extends AppEnv, Output>(
	c: Context<E>,
	schema: ZodType<Output>,
): Promise<Output> {
	const [type = ""] = c.req.header("Content-Type")?.split(";") ?? [];
	if (!/^application\/([\w.-]+\+)?json *$/i.test(type)) {
		const message = "Send the body as application/json.";
		throw new ApiError(415, "unsupported_media_type", message);
	}
	let body: unknown;
	try {
		// Middleware of your own may have read it before.
		await (c.req.raw.bodyUsed || limitJson(c, async () => {}));
		body = await c.req.json();
	} catch (error) {
		if (error instanceof ApiError) {
			throw error;
		}
		throw new ApiError(400, "invalid_json", "The body is not valid JSON.");
	}
	return parseInput(schema, body);
}

// #endregion base
// #region access
/** Returns the token of `Authorization: Bearer <token>`, or "". */
export function bearerToken<E extends AppEnv>(c: Context<E>): string {
	const header = c.req.header("Authorization") ?? "";
	return /^Bearer +(\S+)$/i.exec(header)?.[1] ?? "";
}

/** Tells whether a request has the API token. An unset or empty one locks. */
export async function hasApiToken<E extends AppEnv>(
	c: Context<E>,
): Promise<boolean> {
	const { API_TOKEN } = c.env;
	return !!API_TOKEN && timingSafeEqual(bearerToken(c), API_TOKEN);
}

/** The answer to a request that does not show who sends it. */
export function unauthorized(
	message = "Send `Authorization: Bearer <API_TOKEN>`.",
): ApiError {
	const headers = { "WWW-Authenticate": "Bearer" };
	return new ApiError(401, "unauthorized", message, headers);
}

/** Middleware for the operator's routes: lets nobody else pass. */
export const operatorOnly = createMiddleware<AppEnv>(async (c, next) => {
	if (!(await hasApiToken(c))) {
		throw unauthorized();
	}
	await next();
});

// #endregion access

// Your middleware

app.get("/health", (c) => c.json({ status: "ok" }));

app.get("/", (c) => {
	const routes = app.routes.filter(({ method }) => method !== "ALL");
	const list = routes.map(({ method, path }) => `${method} ${path}`);
	return c.json({ routes: [...new Set(list)] });
});

// #region browser
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

const pages = new Hono<AppEnv>();

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
export async function readPage(env: Env, url: URL) {
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

async function pageTimeout(): Promise<never> {
	await scheduler.wait(PAGE_TIMEOUT_MS);
	throw new ApiError(504, "target_timeout", "The page took too long.");
}

async function visitPage(browser: Browser, url: URL) {
	try {
		const page = await browser.newPage();
		const response = await page.goto(url.href, { waitUntil: "networkidle2" });
		// Cut in the browser: all of it could be more than a Worker can hold.
		const read = await page.evaluate<
			[],
			() => { url: string; title: string; text: string }
		>(`({
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
function requirePublicUrl(url: URL): void {
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

function isPublicHost(host: string): boolean {
	if (isIP(host) === 4) {
		return !privateNetworks.check(host);
	}
	if (isIP(host) === 6) {
		// 2000::/3 is public, but in 2001::/23 and 2002::/16 are IPv4 addresses.
		return /^(?!2001:1?\w{0,2}:|2002:)[23]\w{3}:/.test(host);
	}
	return /\.(?!(localhost|local|internal|arpa)$)[^.]+$/.test(host);
}

app.route("/", pages);

// #endregion browser

// Your code

export default {
	fetch: app.fetch,
	// Your handlers
} satisfies ExportedHandler<Env>;
