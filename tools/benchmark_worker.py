"""The cost of a generated Worker beside the smallest Workers that do the same."""

import gzip
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import workbench

BARE = 'export default { fetch: () => Response.json({ status: "ok" }) };\n'
HONO = """import { Hono } from "hono";

const app = new Hono();
app.get("/health", (c) => c.json({ status: "ok" }));
export default app;
"""
# The middleware of every project, with its options, and nothing of our own.
WITH_MIDDLEWARE = """import { Hono } from "hono";
import { cors } from "hono/cors";
import { secureHeaders } from "hono/secure-headers";

const app = new Hono();
app.use(
	secureHeaders({
		contentSecurityPolicy: {
			defaultSrc: ["'none'"],
			frameAncestors: ["'none'"],
		},
		strictTransportSecurity: "max-age=31536000",
		overwrite: false,
	}),
	cors({
		origin: () => null,
		credentials: true,
		exposeHeaders: ["ETag", "Retry-After", "X-Request-Id"],
		maxAge: 600,
	}),
);
app.get("/health", (c) => c.json({ status: "ok" }));
export default app;
"""
# Modules of `agents` that the runtime has only where Cloudflare or Miniflare
# brings it.
EMAIL = "export default { EmailMessage: class {} };"
WRANGLER = workbench.ROOT / "node_modules/wrangler/wrangler-dist/cli.js"
READ_CONFIG = """
import { unstable_readConfig as readConfig } from "wrangler";
console.log(JSON.stringify(readConfig({ config: "wrangler.jsonc" })));
"""


@dataclass
class Worker:
    """A Worker that is measured.

    Attributes:
        name: What the table calls it.
        folder: Where its `wrangler.jsonc` is.
        port: Where it answers, once it is served.
        process: The runtime that serves it.
        rates: Requests per second, of each run.
        costs: Microseconds of processor time per request, of each run.
    """

    name: str
    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)


def measure(projects: list[str], rounds: int, seconds: int) -> None:
    """Serves Workers with the real runtime side by side, and prints a table.

    The Workers take turns, so that what else the machine does meets all alike.

    Args:
        projects: The features of each project, with commas; `none` and `all` too.
            The table has `none` in any case.
        rounds: How many times each is measured.
        seconds: For how long.
    """
    workbench.set_up_python()
    workbench.set_up_npm("Setting up npm packages in node_modules")
    workbench.install({"wrk": shutil.which("wrk")})
    features = sorted(path.name for path in (workbench.ROOT / "features").iterdir())
    names = list(dict.fromkeys(["none", *(projects or [*features, "all"])]))
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "node_modules").symlink_to(workbench.ROOT / "node_modules")
        workers = []
        for name in names:
            chosen = {"none": [], "all": features}.get(name, name.split(","))
            project = folder / name
            workbench.copy_project(project, f"features={json.dumps(chosen)}")
            (project / "node_modules").symlink_to(workbench.ROOT / "node_modules")
            workers.append(Worker(name, project))
            serve(workers[-1], stack)
        date = read_config(workers[0].folder)["compatibility_date"]
        references = {
            "bare handler": BARE,
            "smallest Hono": HONO,
            "Hono with middleware": WITH_MIDDLEWARE,
        }
        for number, (name, code) in enumerate(references.items()):
            worker = Worker(name, write_reference(folder / f"{number}", code, date))
            workers.insert(number, worker)
            serve(worker, stack)
        print(f"Measuring {len(workers)} Workers, {rounds} times each ...", flush=True)
        for worker in workers:
            run_load(worker, seconds=1)  # until the code is compiled
            worker.rates.clear()
            worker.costs.clear()
        for _ in range(rounds):
            for worker in workers:
                run_load(worker, seconds)
        stack.close()  # frees the ports
        print_table(workers, floor=workers[0], base=workers[2])


def write_reference(folder: Path, code: str, date: str) -> Path:
    """Writes a Worker without the template, and returns where to."""
    folder.mkdir()
    (folder / "index.js").write_text(code)
    config = {"name": "reference", "main": "index.js", "compatibility_date": date}
    (folder / "wrangler.jsonc").write_text(json.dumps(config))
    return folder


def read_config(folder: Path) -> dict:
    """Returns the `wrangler.jsonc` of a Worker as Wrangler reads it."""
    command = [workbench.NODE, "--input-type=module", "--eval", READ_CONFIG]
    return json.loads(
        subprocess.check_output(
            command, cwd=folder, env=workbench.quiet_environment(), text=True
        )
    )


def serve(worker: Worker, stack: ExitStack) -> None:
    """Bundles a Worker as a deploy does, and serves it until the stack unwinds."""
    config = read_config(worker.folder)
    bundle = worker.folder / "bundle"
    run_wrangler(worker, "deploy", "--dry-run", "--minify", "--outdir", str(bundle))
    (worker.port,) = workbench.free_ports(0)
    (bundle / "config.capnp").write_text(runtime_config(bundle, config, worker.port))
    worker.process = stack.enter_context(
        workbench.started(workerd_command(), cwd=bundle)
    )
    workbench.wait_for_health(worker.process, worker.port)


def runtime_config(bundle: Path, config: dict, port: int) -> str:
    """Writes the config with which workerd serves a bundle.

    Args:
        bundle: The folder of the bundle, with `index.js` and further modules.
        config: Its `wrangler.jsonc`, whose date implies `nodejs_compat`. Of the
            bindings only vars are there, since `GET /health` needs no other.
        port: Where to serve.

    Returns:
        The text of a Cap'n Proto file.
    """
    kinds = {".js": "esModule", ".wasm": "wasm"}
    modules = [
        f'(name = "{path.name}", {kinds[path.suffix]} = embed "{path.name}")'
        # The first is where the runtime starts.
        for path in sorted(bundle.iterdir(), key=lambda path: path.name != "index.js")
        if path.suffix in kinds
    ]
    bindings = [
        f"(name = {json.dumps(name)}, json = {json.dumps(json.dumps(value))})"
        if not isinstance(value, str)
        else f"(name = {json.dumps(name)}, text = {json.dumps(value)})"
        for name, value in config["vars"].items()
    ]
    return f"""using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "main", worker = .main)],
  extensions = [(modules = [(
    name = "cloudflare-internal:email", internal = true, esModule = "{EMAIL}",
  )])],
  sockets = [
    (name = "http", address = "127.0.0.1:{port}", http = (), service = "main"),
  ],
);

const main :Workerd.Worker = (
  modules = [{", ".join(modules)}],
  compatibilityDate = "{config["compatibility_date"]}",
  bindings = [{", ".join(bindings)}],
);
"""


def run_load(worker: Worker, seconds: int) -> None:
    """Asks a Worker as often as it answers, and keeps how that went.

    Raises:
        RuntimeError: An answer was not 200, or none came.
    """
    before, start = cpu_seconds(worker), time.monotonic()
    load = ["wrk", "--threads=1", "--connections=16", f"--duration={seconds}s"]
    output = subprocess.check_output(
        [*load, f"http://127.0.0.1:{worker.port}/health"], text=True
    )
    elapsed, used = time.monotonic() - start, cpu_seconds(worker) - before
    found = re.search(r"(\d+) requests in", output)
    if not found or "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"{worker.name}: {output}")
    requests = int(found[1])
    worker.rates.append(requests / elapsed)
    worker.costs.append(used / requests * 1e6)


def cpu_seconds(worker: Worker) -> float:
    """Returns the processor time that the runtime of a Worker has used."""
    stat = Path(f"/proc/{worker.process.pid}/stat").read_text()
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def bundle_kib(worker: Worker) -> float:
    """Returns the size of a bundle as it is uploaded."""
    modules = [
        path
        for path in (worker.folder / "bundle").iterdir()
        if path.suffix in (".js", ".wasm")
    ]
    return sum(len(gzip.compress(path.read_bytes())) for path in modules) / 1024


def startup_ms(worker: Worker) -> float:
    """Returns the processor time from the start to the first answer.

    The median of five, in milliseconds.
    """
    spent = []
    for _ in range(5):
        process = subprocess.Popen(
            workerd_command(), cwd=worker.folder / "bundle", stderr=subprocess.DEVNULL
        )
        try:
            workbench.wait_for_health(process, worker.port)
        finally:
            process.kill()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        spent.append((usage.ru_utime + usage.ru_stime) * 1000)
    return statistics.median(spent)


def workerd_command() -> list[str | Path]:
    """Returns the command that serves the bundle of the folder where it runs."""
    (workerd,) = workbench.ROOT.glob("node_modules/@cloudflare/workerd-*/bin/workerd")
    return [workerd, "serve", "config.capnp"]


def run_wrangler(worker: Worker, *arguments: str) -> None:
    """Runs Wrangler in the folder of a Worker.

    Raises:
        SystemExit: With what it printed, when it failed.
    """
    environment = workbench.quiet_environment()
    path = f"{workbench.ROOT}/node_modules/.bin:{environment['PATH']}"
    process = subprocess.run(
        [workbench.NODE, WRANGLER, *arguments],
        cwd=worker.folder,
        env=environment | {"CI": "1", "NO_COLOR": "1", "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        sys.exit(f"{worker.name} has no bundle:\n{process.stdout}")


def print_table(workers: list[Worker], floor: Worker, base: Worker) -> None:
    """Prints what has been measured.

    Args:
        workers: The Workers, one per line.
        floor: The one whose start is that of the runtime itself.
        base: The one that the ratios compare with.
    """
    least = startup_ms(floor)
    print(f"\n{'':20}  req/s  ratio  CPU µs  ratio  gzip KiB  start-up CPU ms")
    for worker in workers:
        rate = statistics.median(worker.rates)
        cost = statistics.median(worker.costs)
        # Of each round, in which both met the same load of the machine.
        rate_ratio = ratio_of(worker.rates, base.rates)
        cost_ratio = ratio_of(worker.costs, base.costs)
        startup = 0 if worker is floor else startup_ms(worker) - least
        print(
            f"{worker.name:20} {rate:6,.0f} {rate_ratio:6.2f}  {cost:6.1f} "
            f"{cost_ratio:6.2f}  {bundle_kib(worker):8.1f}  {startup:15.1f}",
            flush=True,
        )


def ratio_of(values: list[float], base: list[float]) -> float:
    """Returns the median of the ratios of two series."""
    return statistics.median(a / b for a, b in zip(values, base, strict=True))
