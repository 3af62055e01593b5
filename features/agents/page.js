// Wrangler lets Vite build it from `client/agents.jsx`.
import "/dist/agents.js";
