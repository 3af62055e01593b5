import type { Context } from "hono";
import type { AppEnv } from "../http/worker";
import { ApiError } from "../http/worker";

/**
 * Reads the `Idempotency-Key` header, with which a client can safely send a
 * request again.
 *
 * @returns The key; `undefined` without the header.
 * @throws ApiError 400 unless it is 1 to 128 printable ASCII characters.
 */
export function idempotencyKey<E extends AppEnv>(c: Context<E>) {
	const key = c.req.header("Idempotency-Key");
	if (key !== undefined && !/^[\x20-\x7e]{1,128}$/.test(key)) {
		throw new ApiError(
			400,
			"invalid_idempotency_key",
			"Send an Idempotency-Key of 1 to 128 printable ASCII characters.",
		);
	}
	return key;
}

/**
 * Derives an id from an idempotency key.
 *
 * @param scope What the id is for. The same key gives another id elsewhere.
 * @param key The key, which nobody can read from the id.
 * @returns The same UUID for the same scope and key.
 */
export async function idempotentId(scope: string, key: string) {
	const bytes = new TextEncoder().encode(`${scope}\n${key}`);
	const digest = await crypto.subtle.digest("SHA-256", bytes);
	const hex = [...new Uint8Array(digest)]
		.map((byte) => byte.toString(16).padStart(2, "0"))
		.join("");
	// A UUID of version 8 and variant 8: 120 bits of it are the digest's.
	return hex.replace(
		/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*$/,
		"$1-$2-8$3-8$4-$5",
	);
}
