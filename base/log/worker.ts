import { env as deployed } from "cloudflare:workers";

/** What a log line is about, such as a room or a queue. Never a secret. */
type LogFields = Record<string, unknown>;

/** How deep the causes of an error are logged. */
const LOGGED_CAUSES = 3;

/** Writes one JSON line to the logs. */
export function logInfo(message: string, fields: LogFields = {}): void {
	console.log(logLine("info", message, fields));
}

/** Writes one JSON line to the logs, as a warning. */
export function logWarning(message: string, fields: LogFields = {}): void {
	console.warn(logLine("warn", message, fields));
}

/**
 * Writes one JSON line to the logs, as an error with its causes.
 *
 * @param error What was thrown. Where it says `isCausePrivate: true`, its causes are
 * left out, since they may quote what must not be logged.
 */
export function logError(
	message: string,
	error: unknown,
	fields: LogFields = {},
): void {
	const described = describeError(error, LOGGED_CAUSES);
	console.error(logLine("error", message, { ...fields, error: described }));
}

function logLine(level: string, message: string, fields: LogFields): string {
	// The version tells the lines of a new deploy from those before it.
	const line = { level, message, version: deployed.CF_VERSION_METADATA.id };
	// First for those who read it, and last so that no field replaces any of it.
	const write = (more: LogFields) =>
		JSON.stringify({ ...line, ...more, ...line }, (_, value) =>
			typeof value === "bigint" ? String(value) : value,
		);
	try {
		return write(fields);
	} catch (error) {
		// A cycle, for example: logging must not fail the work that it tells of.
		return write({ fields: String(error) });
	}
}

function describeError(error: unknown, causes: number): object {
	if (!(error instanceof Error)) {
		return { name: typeof error, message: String(error) };
	}
	// An ApiError may have `issues`: what was wrong with an input.
	const { message, stack, cause, issues, isCausePrivate } = error as Error & {
		issues?: unknown;
		isCausePrivate?: boolean;
	};
	// A subclass that sets no name has that of its class.
	const name = error.name === "Error" ? error.constructor.name : error.name;
	const described = { name, message, issues, stack };
	return cause === undefined || isCausePrivate || causes === 0
		? described
		: { ...described, cause: describeError(cause, causes - 1) };
}
