import type { Plugin } from "vitest/config";

/** A Vite plugin that leaves a word for the tests. */
export default function probePlugin(): Plugin {
	return {
		name: "probe",
		config: () => ({ define: { PROBE_WORD: '"from the plugin"' } }),
	};
}
