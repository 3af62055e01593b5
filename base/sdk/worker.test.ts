import { env } from "cloudflare:workers";
import { afterEach, expect, it } from "vitest";
import { modelOptions } from "./worker";

type Secret = Parameters<typeof modelOptions>[1];

const URL_OF_API = "https://api.example.com/v1";
/** A key of the project, whichever. */
const SECRET = Object.keys(env).find((name) =>
	name.endsWith("_API_KEY"),
) as Secret;
const { [SECRET]: key, AI_GATEWAY_BASE_URL: gateway } = env;

afterEach(() => {
	env[SECRET] = key;
	env.AI_GATEWAY_BASE_URL = gateway;
});

it("asks the provider, no longer than an answer may take, and once", () => {
	expect(modelOptions(env, SECRET, URL_OF_API)).toEqual({
		apiKey: `test-${SECRET}`,
		baseURL: URL_OF_API,
		timeout: 120_000,
		maxRetries: 0,
		logLevel: "off",
	});
});

it("asks the gateway instead where one is set", () => {
	env.AI_GATEWAY_BASE_URL = "https://gateway.example.com/v1/account/name";
	expect(modelOptions(env, SECRET, URL_OF_API).baseURL).toBe(
		env.AI_GATEWAY_BASE_URL,
	);
});

it.each([undefined, "", " key", "key\n", "key with spaces", "schlüssel"])(
	"refuses the key %j, and says what to set",
	(value) => {
		Object.assign(env, { [SECRET]: value });
		expect(() => modelOptions(env, SECRET, URL_OF_API)).toThrow(
			expect.objectContaining({
				status: 503,
				code: "model_not_configured",
				message: expect.stringContaining(`wrangler secret put ${SECRET}`),
			}),
		);
	},
);
