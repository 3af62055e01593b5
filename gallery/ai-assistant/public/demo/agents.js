// Wrangler lets Vite build it from `client/`.
import "/dist/agents.js";
