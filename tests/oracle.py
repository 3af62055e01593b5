"""What a project must hold, predicted from the specification alone.

Nothing here reads the template: a mistake there cannot hide itself here.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Feature:
    """What one feature brings, as the specification has it.

    Attributes:
        bindings: The names of its bindings.
        classes: Its Durable Object classes, by binding, but for agents.
        agents: Its Durable Object classes that are agents, by binding.
        workflows: Its Workflow classes, by binding.
        packages: The npm packages that its code needs beside Hono and zod.
        dev_packages: The npm packages that only development and tests need.
        files: Its files beside its test.
        routes: Its routes; those that only the operator may use with a lock.
        secrets: The names of its secrets beside the API token.
        variables: Its vars, with their default values.
        model: Whether it asks a model.
        names: Words that stand in a project only when the feature is chosen.
    """

    bindings: tuple[str, ...]
    routes: tuple[str, ...]
    names: tuple[str, ...]
    classes: dict[str, str] = field(default_factory=dict)
    agents: dict[str, str] = field(default_factory=dict)
    workflows: dict[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    dev_packages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    model: bool = False


FEATURES = {
    "websockets": Feature(
        bindings=("CHAT_ROOM",),
        classes={"CHAT_ROOM": "ChatRoom"},
        routes=("GET /ws/:room",),
        names=("CHAT_ROOM", "ChatRoom", "/ws", "acceptWebSocket"),
    ),
    "alarms": Feature(
        bindings=("REMINDER",),
        classes={"REMINDER": "Reminder"},
        routes=(
            "PUT /reminders/:userId 🔒",
            "GET /reminders/:userId",
            "DELETE /reminders/:userId 🔒",
        ),
        names=("REMINDER", "Reminder", "/reminders", "setAlarm"),
    ),
    "auth": Feature(
        bindings=("AUTH_TOKENS",),
        routes=(
            "POST /auth/sessions 🔒",
            "GET /auth/session",
            "DELETE /auth/session",
        ),
        files=("test/session.ts",),
        names=("AUTH_TOKENS", "/auth", "session"),
    ),
    "queues": Feature(
        bindings=("REQUEST_QUEUE",),
        routes=("POST /requests 🔒",),
        secrets=("UPSTREAM_API_KEY",),
        variables={"UPSTREAM_API_URL": ""},
        names=(
            "REQUEST_QUEUE",
            "UPSTREAM_API_KEY",
            "UPSTREAM_API_URL",
            "/requests",
            "upstream",
        ),
    ),
    "hyperdrive": Feature(
        bindings=("HYPERDRIVE",),
        packages=("postgres",),
        dev_packages=("@electric-sql/pglite", "@electric-sql/pglite-socket"),
        files=("scripts/hyperdrive.mjs", "migrations/hyperdrive/0000_books.sql"),
        routes=("GET /db/tables 🔒",),
        names=("HYPERDRIVE", "/db", "postgres", "PGlite"),
    ),
    "workflows": Feature(
        bindings=("MY_WORKFLOW",),
        workflows={"MY_WORKFLOW": "MyWorkflow"},
        routes=(
            "POST /workflows 🔒",
            "GET /workflows/:id 🔒",
            "POST /workflows/:id/approval 🔒",
        ),
        names=("MY_WORKFLOW", "MyWorkflow", "/workflows", "waitForEvent"),
    ),
    "analytics": Feature(
        bindings=("USER_EVENTS",),
        routes=("POST /events",),
        names=("USER_EVENTS", "/events", "dataset"),
    ),
    "browser": Feature(
        bindings=("BROWSER",),
        packages=("@cloudflare/puppeteer",),
        routes=("GET /browser 🔒",),
        names=("BROWSER", "/browser", "puppeteer", "Chrome"),
    ),
    "assets": Feature(
        bindings=("ASSETS",),
        files=(
            "public/_headers",
            "public/demo/app.js",
            "public/demo/index.html",
            "public/demo/panels.js",
            "public/demo/shell.css",
            "public/demo/shell.js",
            "public/favicon.svg",
            "public/index.html",
            "public/style.css",
        ),
        routes=("GET /api/hello",),
        names=("ASSETS", "run_worker_first", "public/", "/api/hello"),
    ),
    "agents": Feature(
        bindings=("AiAgent",),
        agents={"AiAgent": "AiAgent"},
        packages=("@modelcontextprotocol/client", "agents"),
        dev_packages=("@babel/core",),
        routes=(
            "GET /agents/ai-agent/:name 🔒",
            "POST /agents/ai-agent/:name 🔒",
            "DELETE /agents/ai-agent/:name 🔒",
            "POST /agents/ai-agent/:name/ticket 🔒",
        ),
        model=True,
        names=("AiAgent", "ai-agent", "routeAgentRequest", "ticket"),
    ),
    "structured-output": Feature(
        bindings=(),
        routes=("POST /extract 🔒",),
        model=True,
        names=("/extract", "calendar_event", "calendarEvent", "structured-output"),
    ),
    "d1": Feature(
        bindings=("DB",),
        files=("migrations/0000_notes.sql", "test/migrate.ts"),
        routes=(
            "GET /notes",
            "GET /notes/:id",
            "POST /notes 🔒",
            "DELETE /notes/:id 🔒",
        ),
        names=("env.DB", "/notes", "createNote", "SQLite"),
    ),
    "cron": Feature(
        bindings=(),
        routes=(),
        names=("nightly", "quarterHourly", "workNightly", "forPeriods"),
    ),
    "ai": Feature(
        bindings=(),
        routes=("POST /ai/chat 🔒",),
        model=True,
        names=("/ai/chat", "aiChat"),
    ),
    "rate-limit": Feature(
        bindings=("RATE_LIMITER",),
        routes=(),
        names=("RATE_LIMITER", "rateLimited", "rate_limited"),
    ),
    "r2": Feature(
        bindings=("BUCKET",),
        routes=(
            "GET /files 🔒",
            "GET /files/:key{.+}",
            "PUT /files/:key{.+} 🔒",
            "DELETE /files/:key{.+} 🔒",
        ),
        names=("BUCKET", "r2_bucket", "/files", "sendFile"),
    ),
    "vectorize": Feature(
        bindings=("VECTORIZE", "AI"),
        routes=(
            "POST /documents 🔒",
            "DELETE /documents/:id 🔒",
            "GET /search 🔒",
        ),
        names=(
            *("VECTORIZE", "Vectorize", "/documents", "/search"),
            *("env.AI", "Workers AI", "@cf"),
        ),
    ),
}

#: What two features bring together.
JOINTS = {
    frozenset({"agents", "assets"}): Feature(
        bindings=(),
        routes=(),
        dev_packages=(
            *("@types/react", "@types/react-dom"),
            *("react", "react-dom", "vite"),
        ),
        files=("client/agents.tsx", "client/tsconfig.json", "vite.config.ts"),
        names=("react", "vite build"),
    ),
    frozenset({"agents", "workflows"}): Feature(
        bindings=(),
        routes=(),
        names=("startWorkflow",),
    ),
}

#: The provider of a model that people get who do not choose.
DEFAULT = "workers-ai"
#: What each provider of a model brings to the features that ask one.
PROVIDERS = {
    "workers-ai": Feature(
        bindings=("AI",),
        routes=(),
        variables={"AI_MODEL": "@cf/meta/llama-3.3-70b-instruct-fp8-fast"},
        files=("test/provider.ts",),
        names=("env.AI", "Workers AI", "@cf"),
    ),
    "openai": Feature(
        bindings=(),
        routes=(),
        packages=("openai",),
        secrets=("OPENAI_API_KEY",),
        variables={"AI_MODEL": "gpt-5.6-luna", "AI_GATEWAY_BASE_URL": ""},
        files=("test/provider.ts",),
        names=("openai", "OPENAI_API_KEY"),
    ),
    "anthropic": Feature(
        bindings=(),
        routes=(),
        packages=("@anthropic-ai/sdk",),
        secrets=("ANTHROPIC_API_KEY",),
        variables={"AI_MODEL": "claude-haiku-5-5", "AI_GATEWAY_BASE_URL": ""},
        files=("test/provider.ts",),
        names=("anthropic", "Anthropic", "ANTHROPIC_API_KEY"),
    ),
}

BASE_ROUTES = ("GET /", "GET /health")
#: Where `assets` serves its page instead of a route.
PAGE = "GET /"
BASE_FILES = {
    ".copier-answers.yml",
    ".gitattributes",
    ".github/workflows/ci.yml",
    ".gitignore",
    ".node-version",
    "AGENTS.md",
    "README.md",
    "biome.json",
    "package.json",
    "src/index.ts",
    "test/base.test.ts",
    "tsconfig.json",
    "vitest.config.ts",
    "wrangler.jsonc",
}
TOOLS = {
    "@biomejs/biome",
    "@cloudflare/vitest-plugin",
    "@types/node",
    "typescript",
    "vitest",
    "wrangler",
}


def parts(chosen: list[str], provider: str) -> list[Feature]:
    """Return what a project is made of beside the base, in its order."""
    features = [FEATURES[feature] for feature in chosen]
    features += [joint for pair, joint in JOINTS.items() if pair <= set(chosen)]
    models = [PROVIDERS[provider]] if any(part.model for part in features) else []
    return models + features


def bindings(chosen: list[str], provider: str = DEFAULT) -> set[str]:
    """Return the names of all bindings of a project."""
    return {name for part in parts(chosen, provider) for name in part.bindings}


def classes(chosen: list[str]) -> dict[str, str]:
    """Return the Durable Object classes of a project, by binding."""
    pairs = (FEATURES[feature].classes.items() for feature in chosen)
    return {**dict(pair for items in pairs for pair in items), **agents(chosen)}


def agents(chosen: list[str]) -> dict[str, str]:
    """Return those Durable Object classes that are agents, by binding."""
    pairs = (FEATURES[feature].agents.items() for feature in chosen)
    return dict(pair for items in pairs for pair in items)


def workflows(chosen: list[str]) -> dict[str, str]:
    """Return the Workflow classes of a project, by binding."""
    pairs = (FEATURES[feature].workflows.items() for feature in chosen)
    return dict(pair for items in pairs for pair in items)


def packages(chosen: list[str], provider: str = DEFAULT) -> set[str]:
    """Return the npm packages that a project needs at run time."""
    own = (name for part in parts(chosen, provider) for name in part.packages)
    return {"hono", "zod", *own}


def dev_packages(chosen: list[str], provider: str = DEFAULT) -> set[str]:
    """Return the npm packages that a project needs for development."""
    own = (name for part in parts(chosen, provider) for name in part.dev_packages)
    return {*TOOLS, *own}


def secrets(chosen: list[str], provider: str = DEFAULT) -> list[str]:
    """Return the secrets that a project requires."""
    routes = [route for feature in chosen for route in FEATURES[feature].routes]
    guarded = any(route.endswith("🔒") for route in routes)
    own = [name for part in parts(chosen, provider) for name in part.secrets]
    return (["API_TOKEN"] if guarded else []) + own


def variables(chosen: list[str], provider: str = DEFAULT) -> dict[str, str]:
    """Return the vars of a project."""
    pairs = (part.variables.items() for part in parts(chosen, provider))
    return {"ALLOWED_ORIGINS": "", **dict(pair for items in pairs for pair in items)}


def routes(chosen: list[str]) -> set[str]:
    """Return the rows of the table of routes, as `METHOD /path`, with locks."""
    own = {route for feature in chosen for route in FEATURES[feature].routes}
    return {*BASE_ROUTES, *own} - ({PAGE} if "assets" in chosen else set())


def worker_first(chosen: list[str]) -> list[str]:
    """Return which paths the Worker answers although there are static files."""
    paths = {"/api/", *(route.split()[1] for route in routes(chosen))}
    segments = {path.split("/")[1] for path in paths}
    return sorted(f"/{segment}{rest}" for segment in segments for rest in ("", "/*"))


def files(chosen: list[str], provider: str = DEFAULT) -> set[str]:
    """Return the paths of all files of a project."""
    tests = {f"test/{feature}.test.ts" for feature in chosen}
    others = {path for part in parts(chosen, provider) for path in part.files}
    panels = {
        f"public/demo/{name}.{kind}"
        for name in chosen
        if FEATURES[name].routes
        for kind in ("html", "js")
    }
    return (
        BASE_FILES
        | tests
        | others
        | ({"test/access.test.ts"} if "API_TOKEN" in secrets(chosen) else set())
        | ({".dev.vars.example"} if secrets(chosen, provider) else set())
        | (panels if "assets" in chosen else set())
    )
