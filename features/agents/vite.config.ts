import { defineConfig } from "vite";

// Builds the client of the agents, which is written with React.
export default defineConfig({
	logLevel: "warn",
	build: {
		outDir: "public/dist",
		copyPublicDir: false,
		modulePreload: false,
		rolldownOptions: {
			input: "client/agents.tsx",
			// The pages load it already, as it is.
			external: ["/app.js"],
			output: { entryFileNames: "agents.js" },
		},
	},
});
