import { defineConfig } from "vite";

// Builds the page of the agents, which is written in React.
export default defineConfig({
	logLevel: "warn",
	build: {
		outDir: "public/dist",
		copyPublicDir: false,
		rolldownOptions: {
			input: "client/agents.tsx",
			output: { entryFileNames: "agents.js" },
		},
	},
});
