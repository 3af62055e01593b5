import { MODEL_TIMEOUT_MS, modelNotConfigured } from "../model/worker";

/** The token limit of an answer, reasoning included. */
export const MODEL_MAX_TOKENS = 8192;

/**
 * Returns the options with which a provider's SDK makes a client for a request.
 *
 * @param secret The name of the secret that is the provider's key.
 * @param url Where the provider's API is, unless a gateway is set.
 * @throws ApiError 503 without the key.
 */
export function modelOptions(
	env: Env,
	secret: keyof Env & `${string}_API_KEY`,
	url: string,
) {
	// Anything else is not a valid header, and the runtime would log it.
	if (!/^[\x21-\x7e]+$/.test(env[secret] ?? "")) {
		throw modelNotConfigured(
			`Set ${secret}: locally in .dev.vars (then restart dev), else with wrangler secret put ${secret}.`,
		);
	}
	return {
		apiKey: env[secret],
		baseURL: env.AI_GATEWAY_BASE_URL || url,
		timeout: MODEL_TIMEOUT_MS,
		// The client knows best whether to wait and try again.
		maxRetries: 0,
		// The SDK would log prompts and answers.
		logLevel: "off" as const,
	};
}
