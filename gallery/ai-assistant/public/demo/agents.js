// Wrangler lets Vite build it from `client/agents.tsx`.
import "/dist/agents.js";
