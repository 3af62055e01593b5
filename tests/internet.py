"""The world outside of Workers, on this machine: web sites, browsers, models."""

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from queue import Queue

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

import workbench
from dev_server import DevServer, serve
from toolchain import node_environment
from workbench import ROOT, dev_command


@contextmanager
def answering(
    answer: Callable[[Request], Response], port: int = 0
) -> Iterator[HTTPServer]:
    """Serve HTTP on 127.0.0.1 until the block ends.

    Args:
        answer: Gives every answer; may take its time.
        port: Where; by default on any free port.
    """
    with HTTPServer("127.0.0.1", port, threaded=True) as server:
        server.expect_request(re.compile(".*")).respond_with_handler(answer)
        yield server


# --- Public names ---------------------------------------------------------------

#: The Worker, with what stands in for Vectorize and the model that makes its
#: vectors: they count characters.
ENTRY = """
import worker from "./src/index";

const vectors = new Map();
const AI = {
	run: async (model, { text }) => ({
		data: text.map((one) => {
			const values = Array(1024).fill(0);
			for (const character of one) {
				values[character.charCodeAt(0) & 1023]++;
			}
			const length = Math.hypot(...values);
			return values.map((value) => value / length);
		}),
	}),
};
const VECTORIZE = {
	upsert: async (list) => {
		for (const { id, values, metadata } of list) {
			vectors.set(id, { id, values, metadata });
		}
	},
	deleteByIds: async (ids) => ids.forEach((id) => vectors.delete(id)),
	query: async (query, { topK }) => {
		const matches = [...vectors.values()].map(({ id, values, metadata }) => ({
			id,
			metadata,
			score: values.reduce((sum, value, i) => sum + value * query[i], 0),
		}));
		matches.sort((a, b) => b.score - a.score);
		return { matches: matches.slice(0, topK) };
	},
};

export * from "./src/index";
export default {
	...worker,
	fetch: (request, env, ctx) => {
		const own = env.VECTORIZE ? { ...env, AI, VECTORIZE } : env;
		return worker.fetch(request, own, ctx);
	},
};
"""


def chromium_with(names: dict[str, HTTPServer], folder: Path) -> Path:
    """Write a program into a folder: a Chromium that finds servers by names."""
    program = workbench.chromium_program()
    assert program is not None, "`python3 test.py` installs it"
    rules = ", ".join(
        f"MAP {name} 127.0.0.1:{server.port}" for name, server in names.items()
    )
    ports = {server.port for server in names.values()}
    spaces = ",".join(f"127.0.0.1:{port}=public" for port in ports)
    script = folder / "chrome"
    script.write_text(
        "#!/bin/sh\n"
        f'exec {program} "--host-resolver-rules={rules}" \\\n'
        "  --unsafely-treat-insecure-origin-as-secure=http://site.example \\\n"
        # Else Chromium itself keeps some pages from this machine.
        f"  --ip-address-space-overrides={spaces} \\\n"
        '  "$@"\n'
    )
    script.chmod(0o755)
    return script


def environment_with(cache: Path) -> dict[str, str]:
    """Return the environment of a server whose Wrangler has this cache."""
    # CI: else Chromium refuses to run as root.
    return {**node_environment(), "CI": "1", "XDG_CACHE_HOME": str(cache)}


@contextmanager
def serve_with(chromium: Path, project: Path) -> Iterator[DevServer]:
    """Serve a project whose Worker has this browser, until the block ends.

    Args:
        chromium: The browser.
        project: The project, with its packages.
    """
    cache = chromium.parent / "cache"
    miniflare = (ROOT / "node_modules/miniflare/dist/src/index.js").read_text()
    (version,) = re.findall(r'BROWSER_VERSION = "([\d.]+)"', miniflare)
    for platform in ("linux", "linux_arm"):
        installed = cache / f".wrangler/chrome/{platform}-{version}"
        (installed / "chrome-linux64").mkdir(parents=True)
        shutil.copy2(chromium, installed / "chrome-linux64" / "chrome")
        (installed / ".miniflare-install-complete").touch()
    (project / "entry.js").write_text(ENTRY)
    command = dev_command(project, "entry.js")
    with serve(project, command, environment_with(cache)) as server:
        yield server


# --- Models ---------------------------------------------------------------------

#: The key of the model's API.
MODEL_KEY = "key-of-the-model"


class Model(HTTPServer):
    """A stand-in for OpenAI's API, which says what a test tells it to say.

    Attributes:
        pieces: Its next words, piece by piece; `None` ends an answer.
        closed: Set when a client went away in the middle of an answer.
        reason: Why its answers end.
        window: How many characters it takes; it refuses a longer conversation.
    """

    def __init__(self) -> None:
        """Choose a free port; it listens once its context is entered."""
        super().__init__("127.0.0.1", 0, threaded=True)
        self.pieces: Queue[str | None] = Queue()
        self.closed = threading.Event()
        self.reason = "stop"
        self.window = 1_000_000
        self.expect_request(re.compile(".*")).respond_with_handler(self.answer)

    @property
    def requests(self) -> list[dict]:
        """The bodies of the requests so far."""
        return [request.json for request, _ in self.log]

    def say(self, *pieces: str) -> None:
        """Let it say these pieces and end."""
        for piece in (*pieces, None):
            self.pieces.put(piece)

    def answer(self, request: Request) -> Response:
        """Answer a request for a completion, streamed if it asks for that."""
        assert request.headers["Authorization"] == f"Bearer {MODEL_KEY}"
        if sum(len(one["content"]) for one in request.json["messages"]) > self.window:
            error = {"message": "Too long", "code": "context_length_exceeded"}
            return Response(json.dumps({"error": error}), 400)
        pieces = iter(lambda: self.pieces.get(timeout=30), None)
        if request.json.get("stream"):
            return Response(self.events(pieces), mimetype="text/event-stream")
        message = {"role": "assistant", "content": "".join(pieces)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Response(json.dumps({"choices": [choice]}), mimetype="application/json")

    def events(self, pieces: Iterator[str]) -> Iterator[str]:
        """Yield server-sent events: a piece each, and the end."""
        deltas = (
            {"delta": {"role": "assistant", "content": piece}} for piece in pieces
        )
        end = {"delta": {}, "finish_reason": self.reason}
        try:
            for choice in chain(deltas, [end]):
                event = {"id": "1", "choices": [{"index": 0, **choice}]}
                yield f"data: {json.dumps(event)}\n\n"
            yield "data: [DONE]\n\n"
        except GeneratorExit:
            self.closed.set()
            raise

    def connect(self, project: Path) -> Path:
        """Let a project whose provider is `openai` ask this model; return it."""
        config = project / "wrangler.jsonc"
        empty = '"AI_GATEWAY_BASE_URL": ""'
        address = f'{empty[:-1]}{self.url_for("/")}"'
        assert empty in config.read_text()
        config.write_text(config.read_text().replace(empty, address))
        secrets = project / ".dev.vars"
        key = "OPENAI_API_KEY="
        secrets.write_text(secrets.read_text().replace(key, f"{key}{MODEL_KEY}"))
        return project
