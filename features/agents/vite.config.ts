import { defineConfig } from "vite";

// Builds the panel of the agents, which is written with React.
export default defineConfig({
	logLevel: "warn",
	build: {
		outDir: "public/dist",
		copyPublicDir: false,
		modulePreload: false,
		rolldownOptions: {
			input: "client/agents.jsx",
			// What all panels share is the page's own.
			external: ["/app.js"],
			output: { entryFileNames: "agents.js" },
		},
	},
});
