"""Lives of a project: what its user adds, changes and takes away again.

A `Life` is data, which Hypothesis makes up and prints. `Edits` are what its user
has done so far, as a function from the project that the template alone would make
to the project that the user should have.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import oracle
from parts import LANGUAGES, NEWEST
from releases import TREE, VERSIONS, features_of, languages_of

#: A project: the text of each file, by path.
Tree = dict[str, str]


@dataclass(frozen=True)
class Answers:
    """The answers that a project is made from.

    Attributes:
        version: The release of the template, by its place in `VERSIONS`.
        features: The chosen features, in the order of the catalog.
        ai_provider: Whose model answers; the default where nothing asks one.
    """

    version: int = VERSIONS.index(TREE)
    features: tuple[str, ...] = ()
    ai_provider: str = oracle.DEFAULT
    package_manager: str = "npm"
    layout: str = "single-file"
    language: str = LANGUAGES[0]
    custom_domain: str = ""
    compatibility_date: str = NEWEST

    def settled(self) -> "Answers":
        """Return them as they are recorded: in order, and only what was asked."""
        version = VERSIONS[self.version]
        known = features_of(version)
        features = tuple(feature for feature in known if feature in self.features)
        spoken = languages_of(version)
        language = self.language if self.language in spoken else spoken[0]
        after = replace(self, features=features, language=language)
        return after if after.provider() else replace(after, ai_provider=oracle.DEFAULT)

    def provider(self) -> str:
        """Return the provider of a model, or nothing where no feature asks one."""
        models = any(oracle.FEATURES[feature].model for feature in self.features)
        return self.ai_provider if models else ""


Condition = Callable[[Answers], bool]


def always(answers: Answers) -> bool:
    """Tell that what depends on it is in every project."""
    return True


def chosen(*features: str) -> Condition:
    """Return the condition that all of some features are chosen."""
    return lambda answers: set(features) <= set(answers.features)


def any_of(*features: str) -> Condition:
    """Return the condition that one of some features is chosen."""
    return lambda answers: not set(features).isdisjoint(answers.features)


def asked(*providers: str) -> Condition:
    """Return the condition that a feature asks a model of one of some providers."""
    return lambda answers: answers.provider() in providers


# --- What users add -------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """The lines that a user writes in one place.

    Attributes:
        file: The file; or a folder, for the file in it that has the line `below`.
        below: The line of the template that it goes below; nothing for a file of
            the user's own.
        text: Its lines, or the text of that file.
        path: For an entry of `wrangler.jsonc`, the keys that lead to it.
        value: Such an entry, as JSON; with a name for an entry of an object.
        is_record: Whether it stays when the user takes the rest away.
    """

    file: str
    below: str
    text: str
    path: tuple[str, ...] = ()
    value: object = None
    is_record: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of entry.

    Attributes:
        pieces: Makes what the user writes, from a number that tells one entry from
            another.
        needs: Where it has a place: it goes with the section that it stands in.
        once: Whether a project has room for one only.
        farewell: Makes what the user writes when the entry is taken away.
    """

    pieces: Callable[[int], list[Piece]]
    needs: Condition = always
    once: bool = False
    farewell: Callable[[int], list[Piece]] = lambda n: []


def code(text: str, below: str = "// Your code") -> Piece:
    """Return lines of the user's code, with an empty line before them."""
    return Piece("src/", below, f"\n{text}")


def line(file: str, below: str, text: str) -> Piece:
    """Return a line that goes right below another, as deep as that."""
    indent = below[: len(below) - len(below.lstrip("\t"))]
    return Piece(file, below, indent + text)


#: Names of lists in the lines for the user's entries, where the key does not.
CALLED = {"required": "secrets", "bindings": "durable_objects"}
#: How the lines for migrations begin; the last of them is the one to write above.
MIGRATIONS = "\t\t// Your migrations"
#: The features that have Durable Objects.
OBJECTS = [
    feature
    for feature, known in oracle.FEATURES.items()
    if known.classes or known.agents
]


def config(*path: str, **value: object) -> Piece:
    """Return an entry of a list of `wrangler.jsonc`, as Wrangler prints it."""
    return listed(path, value)


def listed(path: tuple[str, ...], value: object) -> Piece:
    """Return an entry, of any type, of a list of `wrangler.jsonc`."""
    below = f"// Your {CALLED.get(path[-1], path[-1])}"
    text = printed(value, len(path) + 1)
    return Piece("wrangler.jsonc", "\t" * (len(path) + 1) + below, text, path, value)


def setting(below: str, *path: str, **value: object) -> Piece:
    """Return an entry of an object of `wrangler.jsonc`: its name and its value."""
    text = "\n".join(printed(value, len(path)).split("\n")[1:-1])
    below = "\t" * (len(path) + 1) + below
    return Piece("wrangler.jsonc", below, text, path, value)


def printed(value: object, depth: int) -> str:
    """Print JSON as Wrangler does: a comma after every element, tabs before it."""
    text = re.sub(r"(?m)(?<=[^\[{,])$", ",", json.dumps(value, indent="\t"))
    return re.sub(r"(?m)^", "\t" * depth, text)


def migration(tag: str, **change: list[str]) -> Piece:
    """Return an entry of the user's in the record of Durable Object classes."""
    value = {"tag": f"user-{tag}", **change}
    text = printed(value, 2)
    path = ("migrations",)
    return Piece("wrangler.jsonc", MIGRATIONS, text, path, value, is_record=True)


def workers(n: int) -> Piece:
    """Return an import of the runtime under a name that nobody else has."""
    text = f'import * as workers{n} from "cloudflare:workers";'
    return line("src/", "// Your imports", text)


def durable_object(n: int) -> list[Piece]:
    """Return a class of Durable Objects, with its binding and migration."""
    return [
        workers(n),
        code(f"export class Mine{n} extends workers{n}.DurableObject<Env> {{}}"),
        config("durable_objects", "bindings", name=f"MINE_{n}", class_name=f"Mine{n}"),
        migration(f"{n}", new_sqlite_classes=[f"Mine{n}"]),
    ]


def workflow(n: int) -> list[Piece]:
    """Return a Workflow with its binding."""
    name = f"MyFlow{n}"
    body = "{\n\toverride async run() {}\n}"
    return [
        workers(n),
        code(f"export class {name} extends workers{n}.WorkflowEntrypoint<Env> {body}"),
        config("workflows", name=f"flow-{n}", binding=f"MY_FLOW_{n}", class_name=name),
    ]


def queue(n: int) -> list[Piece]:
    """Return a queue with its producer and its consumer."""
    body = "{\n\tfor (const message of batch.messages) {\n\t\tmessage.ack();\n\t}\n}"
    return [
        code(f"async function consume{n}(batch: MessageBatch) {body}"),
        line("src/", "\t\t\t// Your queues", f'"queue-{n}": consume{n},'),
        config("queues", "producers", binding=f"MY_QUEUE_{n}", queue=f"queue-{n}"),
        config("queues", "consumers", queue=f"queue-{n}", max_batch_timeout=1),
    ]


def cron(n: int) -> list[Piece]:
    """Return a job with its cron expression."""
    expression = f"{n % 60} {n // 60} * * 1"
    body = "{\n\tconsole.log(cron, env.ALLOWED_ORIGINS);\n}"
    arguments = "{ cron }: ScheduledController, env: Env"
    return [
        code(f"async function report{n}({arguments}) {body}"),
        line("src/", "\t\t\t// Your crons", f'"{expression}": report{n},'),
        listed(("triggers", "crons"), expression),
    ]


def middleware(n: int) -> list[Piece]:
    """Return middleware that keeps something for the handlers of a request."""
    body = f'{{\n\tc.set("mine{n}", "yes");\n\tawait next();\n}}'
    kept = f"{{\n\tinterface ContextVariableMap {{\n\t\tmine{n}: string;\n\t}}\n}}"
    return [
        code(
            f'app.use("/mine/{n}/*", async (c, next) => {body});', "// Your middleware"
        ),
        code(
            f'declare module "hono" {kept}\n\n'
            f'app.get("/mine/{n}/of", (c) => c.text(c.var.mine{n}));'
        ),
    ]


def own_test(n: int) -> list[Piece]:
    """Return a test of the user's own."""
    text = (
        'import { exports } from "cloudflare:workers";\n'
        'import { expect, it } from "vitest";\n\n'
        f'it("is well, says {n}", async () => {{\n'
        "\tconst answer = await exports.default.fetch(\n"
        '\t\tnew Request("http://localhost/health"),\n'
        "\t);\n"
        "\texpect(answer.status).toBe(200);\n"
        "});\n"
    )
    return [Piece(f"test/mine{n}.test.ts", "", text)]


#: The parts of users' TypeScript that are no JavaScript.
TYPES = re.compile(
    r": (?:MessageBatch|ScheduledController|Env)\b|<Env>|override |"
    r"declare module (?s:.*?)\n\}\n\n"
)


def named(path: str, language: str) -> str:
    """Return the path of a file as it is in a project of a language."""
    return oracle.in_javascript(path) if language == "javascript" else path


def in_language(piece: Piece, language: str) -> Piece:
    """Return lines of TypeScript as a user of a language writes them."""
    text = TYPES.sub("", piece.text) if language == "javascript" else piece.text
    return replace(piece, file=named(piece.file, language), text=text)


#: Every kind of entry that users write. Some stand in a list or a table of a feature:
#: they go with it, so a user takes them away before.
#:
#: A package of the user's own is not among them. `package.json` has no comments, and
#: package managers sort what it lists, so an entry has no place of its own there: it
#: conflicts with a package that an update adds or removes beside it.
KINDS = {
    "kv": Kind(
        lambda n: [config("kv_namespaces", binding=f"MY_KV_{n}")], chosen("auth")
    ),
    "kv with an id": Kind(
        lambda n: [config("kv_namespaces", binding=f"MY_KV_{n}", id=f"{n:032x}")],
        chosen("auth"),
    ),
    "d1": Kind(
        lambda n: [
            config("d1_databases", binding=f"MY_DB_{n}", database_name=f"mine-{n}")
        ],
        chosen("d1"),
    ),
    "r2": Kind(
        lambda n: [config("r2_buckets", binding=f"MY_FILES_{n}", bucket_name=f"m-{n}")],
        chosen("r2"),
    ),
    "index of vectors": Kind(
        lambda n: [
            config("vectorize", binding=f"MY_INDEX_{n}", index_name=f"mine-{n}")
        ],
        chosen("vectorize"),
    ),
    "postgres": Kind(
        lambda n: [
            config(
                "hyperdrive",
                binding=f"MY_SQL_{n}",
                id=f"{n:032x}",
                localConnectionString="postgres://me:mine@localhost/mine",
            )
        ],
        chosen("hyperdrive"),
    ),
    "dataset": Kind(
        lambda n: [
            config(
                "analytics_engine_datasets",
                binding=f"MY_EVENTS_{n}",
                dataset=f"mine_{n}",
            )
        ],
        chosen("analytics"),
    ),
    "rate limiter": Kind(
        lambda n: [
            config(
                "ratelimits",
                name=f"MY_LIMITER_{n}",
                namespace_id=f"{n}",
                simple={"limit": 10, "period": 60},
            )
        ],
        chosen("rate-limit"),
    ),
    "durable object": Kind(
        durable_object,
        any_of(*OBJECTS),
        farewell=lambda n: [migration(f"{n}-gone", deleted_classes=[f"Mine{n}"])],
    ),
    "workflow": Kind(workflow, chosen("workflows")),
    "queue": Kind(queue, chosen("queues")),
    "producer": Kind(
        lambda n: [
            config("queues", "producers", binding=f"MY_QUEUE_{n}", queue="others")
        ],
        chosen("queues"),
    ),
    "cron": Kind(cron, chosen("cron")),
    "route of the config": Kind(
        lambda n: [
            config("routes", pattern=f"m{n}.example/*", zone_name="mine.example")
        ],
        lambda answers: answers.custom_domain != "",
    ),
    "var": Kind(lambda n: [setting("// Your vars", "vars", **{f"MY_VAR_{n}": "mine"})]),
    "secret": Kind(
        lambda n: [listed(("secrets", "required"), f"MY_KEY_{n}")],
        lambda answers: (
            oracle.secrets(list(answers.features), answers.ai_provider) != []
        ),
    ),
    "setting": Kind(lambda n: [setting("// Your bindings", logpush=False)], once=True),
    "list of the user's own": Kind(
        lambda n: [setting("// Your bindings", tail_consumers=[{"service": "mine"}])],
        once=True,
    ),
    "import": Kind(
        lambda n: [
            line(
                "src/",
                "// Your imports",
                f'import * as etag{n} from "hono/etag";',
            ),
            code(
                f'app.get("/mine/{n}/tagged", etag{n}.etag(), (c) => c.text("mine"));'
            ),
        ]
    ),
    "middleware": Kind(middleware),
    "route": Kind(lambda n: [code(f'app.get("/mine/{n}", (c) => c.text("mine"));')]),
    "handler": Kind(
        lambda n: [
            line("src/", "\t// Your handlers", "async email() {},"),
        ],
        once=True,
    ),
    "module": Kind(
        lambda n: [
            Piece(f"src/mine{n}.ts", "", f"export const mine{n} = {n};\n"),
            line(
                "src/",
                "// Your imports",
                f'import * as mine{n} from "./mine{n}";',
            ),
            code(f'app.get("/mine/{n}/module", (c) => c.json(mine{n}.mine{n}));'),
        ]
    ),
    "test": Kind(own_test),
    "static file": Kind(lambda n: [Piece(f"public/mine{n}.txt", "", "Mine.\n")]),
    "script": Kind(lambda n: [Piece(f"scripts/mine{n}.mjs", "", "process.exit();\n")]),
    "path of the worker": Kind(
        lambda n: [listed(("assets", "run_worker_first"), f"/mine/{n}")],
        needs=chosen("assets"),
    ),
}


# --- What users change and throw away -------------------------------------------


@dataclass(frozen=True)
class Value:
    """A value of the template that users set.

    Attributes:
        file: Where it stands; or a folder, for the one file in it that has it.
        pattern: A regular expression for what stands there.
        text: What the user writes instead.
        needs: Where there is such a value. It goes with what it belongs to, and a
            user takes the change back before: an update that removes a line and a
            user who changes it do not agree, and a conflict says so.
    """

    file: str
    pattern: str
    text: str
    needs: Condition = always


def var(name: str, needs: Condition = always) -> Value:
    """Return the value of a var of the template."""
    value = '"https://mine.example"'
    return Value("wrangler.jsonc", rf'(?<="{name}": )".*"', value, needs)


VALUES = {
    "ALLOWED_ORIGINS": var("ALLOWED_ORIGINS"),
    "UPSTREAM_API_URL": var("UPSTREAM_API_URL", chosen("queues")),
    **{
        f"AI_MODEL of {provider}": var("AI_MODEL", asked(provider))
        for provider in oracle.PROVIDERS
    },
    **{
        f"AI_GATEWAY_BASE_URL of {provider}": var(
            "AI_GATEWAY_BASE_URL", asked(provider)
        )
        for provider in oracle.PROVIDERS
        if "AI_GATEWAY_BASE_URL" in oracle.PROVIDERS[provider].variables
    },
    "share of traces": Value("wrangler.jsonc", r'(?<="head_sampling_rate": )0\.1', "1"),
    "size of a batch": Value(
        "wrangler.jsonc", r'(?<="max_batch_size": )10', "20", chosen("queues")
    ),
    "id of a namespace": Value(
        "wrangler.jsonc",
        r'(?<="binding": "AUTH_TOKENS",\n)',
        f'\t\t\t"id": "{7:032x}",\n',
        chosen("auth"),
    ),
    "id of a database": Value(
        "wrangler.jsonc", r'(?<="id": ")0{32}', f"{8:032x}", chosen("hyperdrive")
    ),
    "size of a message": Value(
        "src/", r"(?<= MESSAGE_BYTES = )65_536", "1_000", chosen("websockets")
    ),
    "length of a session": Value(
        "src/", r"(?<=SESSION_SECONDS = )24 \* 60 \* 60", "60", chosen("auth")
    ),
    "time of an upstream": Value(
        "src/", r"(?<=UPSTREAM_TIMEOUT_MS = )10_000", "5_000", chosen("queues")
    ),
    "work of a reminder": Value(
        "src/",
        r'logInfo\("Reminder fired", \{ userId \}\);',
        "console.log(userId);",
        chosen("alarms"),
    ),
    "script": Value(
        "package.json",
        r'(?<="test": "vitest run")(?=,?\n)',
        ',\n\t\t"mine": "echo mine"',
    ),
    "included folders": Value(
        "tsconfig.json",
        r'(?<="include": \[)',
        '"mine", ',
        lambda answers: answers.language == "typescript",
    ),
    "rule of the linter": Value(
        "biome.json", r'(?="useThrowOnlyError": "error")', '"useTemplate": "off", '
    ),
    "title": Value("README.md", r"\A# .*", "# Mine"),
}

#: The page, which is the user's as soon as it is there.
PAGE = "public/index.html"

#: Files of the template that users throw away.
DEMOS = [
    *(f"test/{feature}.test.ts" for feature in oracle.FEATURES),
    "test/base.test.ts",
    "public/demo/index.html",
    "public/demo/auth.js",
    ".github/workflows/ci.yml",
    ".github/workflows/update.yml",
]


# --- A life ---------------------------------------------------------------------


@dataclass(frozen=True)
class Add:
    """The user adds an entry, below earlier ones in its places or above them."""

    kind: str
    is_last: bool = True


@dataclass(frozen=True)
class Take:
    """The user takes one of the entries away, counted around."""

    entry: int


@dataclass(frozen=True)
class Set:
    """The user sets a value, where there is one."""

    value: str


@dataclass(frozen=True)
class Drop:
    """The user throws a file of the template away, where there is one."""

    file: str


@dataclass(frozen=True)
class Page:
    """The user writes the page anew, or throws it away."""

    text: str | None


@dataclass(frozen=True)
class Update:
    """An update: features that come or go, newer releases, other answers."""

    toggled: tuple[str, ...] = ()
    releases: int = 0
    answers: dict[str, object] = field(default_factory=dict)

    def next(self, before: Answers) -> Answers:
        """Return the answers after it."""
        features = set(before.features) ^ set(self.toggled)
        version = min(before.version + self.releases, len(VERSIONS) - 1)
        after = replace(before, features=tuple(features), version=version)
        return replace(after, **self.answers).settled()


Edit = Add | Take | Set | Drop | Page


@dataclass(frozen=True)
class Chapter:
    """A user's edits, and the update that follows."""

    edits: tuple[Edit, ...]
    update: Update


@dataclass(frozen=True)
class Life:
    """The life of a project."""

    start: Answers
    chapters: tuple[Chapter, ...]


@dataclass
class Entry:
    """One addition of a user: its kind, its number, and its pieces."""

    kind: str
    number: int
    pieces: list[Piece]


@dataclass
class Edits:
    """All that the user of a project has done to it so far.

    Attributes:
        entries: What the user has added and not taken away, in this order.
        blocks: All pieces that stand, by file and line, in their order there.
        values: The names of the values that the user has set.
        dropped: The files that the user has thrown away.
        page: The text of the page; nothing where there is none.
        added: How many entries there ever were.
    """

    entries: list[Entry] = field(default_factory=list)
    blocks: dict[tuple[str, str], list[Piece]] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    page: str | None = None
    added: int = 0

    def do(self, edit: Edit, answers: Answers, fresh: Tree) -> None:
        """Take note of an edit; one that has no place in the project does nothing.

        Args:
            edit: The edit.
            answers: What the project is made from.
            fresh: The project as the template alone makes it.
        """
        match edit:
            case Add(name, is_last):
                kind = KINDS[name]
                twice = kind.once and any(e.kind == name for e in self.entries)
                if kind.needs(answers) and not twice:
                    self.added += 1
                    pieces = kind.pieces(self.added)
                    entry = Entry(name, self.added, [])
                    for piece in pieces:
                        piece = in_language(piece, answers.language)
                        entry.pieces.append(self._put(piece, fresh, is_last))
                    self.entries.append(entry)
            case Take(index):
                if self.entries:
                    self._take(self.entries[index % len(self.entries)], fresh)
            case Set(name):
                if VALUES[name].needs(answers):
                    self.values.add(name)
            case Drop(file):
                self.dropped |= {named(file, answers.language)} & set(fresh)
            case Page(text):
                self.page = text

    def prepare(self, answers: Answers, fresh: Tree) -> None:
        """Take back what has no place after an update.

        Args:
            answers: What the project will be made from.
            fresh: The project as the template alone makes it before the update.
        """
        for entry in list(self.entries):
            if not KINDS[entry.kind].needs(answers):
                self._take(entry, fresh)
        self.values = {name for name in self.values if VALUES[name].needs(answers)}

    def on(self, fresh: Tree) -> Tree:
        """Return a project with everything that the user has done.

        Args:
            fresh: The project as the template alone makes it.

        Raises:
            AssertionError: A line that the user has written below is not there, or
                twice; or a value is not.
        """
        gone = {*self.dropped, PAGE}
        tree = {path: text for path, text in fresh.items() if path not in gone}
        if self.page is not None:
            tree[PAGE] = self.page
        for (file, below), pieces in self.blocks.items():
            texts = [piece.text for piece in pieces]
            if not below:
                (tree[file],) = texts
                continue
            (path,) = (path for path in _below(file, tree) if _has(tree[path], below))
            is_above = below.startswith(MIGRATIONS)
            block = [*texts, below] if is_above else [below, *texts]
            lines = "\n".join(["", *block, ""])
            tree[path] = f"\n{tree[path]}".replace(f"\n{below}\n", lines)[1:]
        for name in sorted(self.values):
            value = VALUES[name]
            (path,) = (
                path
                for path in _below(value.file, tree)
                if re.search(value.pattern, fresh.get(path, ""))
            )
            tree[path] = re.sub(value.pattern, value.text, tree[path], count=1)
        return tree

    def follow(self, before: Tree, fresh: Tree) -> None:
        """Take note of what the template itself has brought and taken away.

        Files that the user has thrown away are forgotten with their feature, and
        the first page comes with `assets`.

        Args:
            before: The project as the template alone made it, before an update.
            fresh: The same after it.
        """
        self.dropped &= set(fresh)
        if self.page is None and PAGE not in before:
            self.page = fresh.get(PAGE)

    def pieces(self) -> Iterator[Piece]:
        """Yield all pieces that stand."""
        for pieces in self.blocks.values():
            yield from pieces

    def _put(self, piece: Piece, fresh: Tree, is_last: bool) -> Piece:
        if piece.below == MIGRATIONS:
            lines = fresh[piece.file].split("\n")
            last = [text for text in lines if text.startswith(MIGRATIONS)][-1]
            piece, is_last = replace(piece, below=last), True
        block = self.blocks.setdefault((piece.file, piece.below), [])
        block.insert(len(block) if is_last else 0, piece)
        return piece

    def _take(self, entry: Entry, fresh: Tree) -> None:
        self.entries.remove(entry)
        for piece in entry.pieces:
            if not piece.is_record:
                block = self.blocks[piece.file, piece.below]
                block.remove(piece)
                if not block:
                    del self.blocks[piece.file, piece.below]
        for piece in KINDS[entry.kind].farewell(entry.number):
            self._put(piece, fresh, True)


def _below(file: str, tree: Tree) -> list[str]:
    """Return a file, or all files of a folder that ends with a slash."""
    return [
        path
        for path in tree
        if path == file or (path.startswith(file) and file[-1] == "/")
    ]


def _has(text: str, wanted: str) -> bool:
    return f"\n{wanted}\n" in f"\n{text}"


# --- Lives that are always played -------------------------------------------------

#: A life that is short enough for plain Copier.
SHORT_LIFE = Life(
    Answers(features=("queues",)),
    (
        Chapter(
            (Add("durable object"), Add("queue"), Set("title"), Drop(DEMOS[0])),
            Update(("auth", "assets"), releases=1),
        ),
    ),
)
#: One entry of each kind, but for the list that names a Worker which no test has.
EVERY_KIND = tuple(Add(kind) for kind in KINDS if kind != "list of the user's own")
#: A life with two entries of every kind.
FULL_LIFE = Life(
    Answers(
        features=tuple(
            one for one in oracle.FEATURES if one not in ("agents", "browser")
        )
    ),
    (
        Chapter(EVERY_KIND, Update(("websockets", "assets", "ai"))),
        Chapter(EVERY_KIND, Update(("agents",))),
    ),
)

#: Cases that broke for people who built products on the template, and in random lives.
TRIALS = {
    "the last feature goes that a list was begun with": Life(
        Answers(features=("websockets", "auth", "alarms")),
        (
            Chapter((Add("durable object"), Add("kv")), Update(("websockets",))),
            Chapter((Add("durable object"),), Update(("websockets", "alarms"))),
        ),
    ),
    "a secret comes beside the user's": Life(
        Answers(
            features=("hyperdrive", "workflows", "assets", "agents"),
            ai_provider="openai",
            package_manager="pnpm",
        ),
        (
            Chapter(
                (Add("secret"), Add("var"), Set("title"), Page("Mine")),
                Update(("queues",)),
            ),
        ),
    ),
    "a gateway is set for one provider while features come": Life(
        Answers(features=("agents",), ai_provider="openai"),
        (
            Chapter(
                (Set("AI_GATEWAY_BASE_URL of openai"), Set("ALLOWED_ORIGINS")),
                Update(("queues", "structured-output")),
            ),
        ),
    ),
    "a model comes while an upstream is set, and stays when the upstream goes": Life(
        Answers(features=("queues",)),
        (
            Chapter((Set("UPSTREAM_API_URL"), Set("ALLOWED_ORIGINS")), Update(("ai",))),
            Chapter((Set("AI_MODEL of workers-ai"),), Update(("queues",))),
            Chapter((), Update(("queues",))),
        ),
    ),
    "the demos of features are thrown away": Life(
        Answers(features=("analytics", "queues", "assets")),
        (
            Chapter(
                (Drop("test/analytics.test.ts"), Drop("test/queues.test.ts")),
                Update(("workflows",), releases=1),
            ),
            Chapter((), Update(releases=2)),
        ),
    ),
    "code uses an import that a feature brought": Life(
        Answers(features=("websockets", "alarms")),
        (Chapter((Add("durable object"),), Update(("websockets",))),),
    ),
}
