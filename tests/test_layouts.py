"""Both layouts, and files of the user's own in each."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import oracle
from parts import FEATURES, LAYOUTS
from projects import edit, texts
from toolchain import assert_clean, assert_tests_pass, link_toolchain, run_copier

Render = Callable[..., Path]


def test_modules_are_the_sections_of_the_one_file(render: Render) -> None:
    (one,) = (render(FEATURES) / "src").iterdir()
    sections = set(re.findall(r"^// #region (.+)$", one.read_text(), re.MULTILINE))
    modules = {
        path.stem for path in (render(FEATURES, layout="modules") / "src").iterdir()
    }
    assert modules == sections | {"index"}


@pytest.mark.parametrize("features", [[], FEATURES], ids=len)
def test_the_index_of_modules_has_the_anchors_in_their_order(
    render: Render, features: list[str]
) -> None:
    files = texts(render(features, layout="modules"))
    anchors = re.findall(r"^\t*// Your (.+)$", files["src/index.ts"], re.MULTILINE)
    tables = oracle.tables(features)
    assert anchors == ["imports", "middleware", "code", *tables, "handlers"]
    others = [path for path, text in files.items() if "// Your " in text]
    assert [path for path in others if path.startswith("src/")] == ["src/index.ts"]


def test_the_layout_of_a_project_stays(render: Render, template: Path) -> None:
    for first, other in (LAYOUTS, LAYOUTS[::-1]):
        project = render([], layout=first)
        before = texts(project)
        data = f"--data=layout={other}"
        copy = ["copy", "--defaults", "--overwrite", data]
        result = run_copier(*copy, template, project)
        assert result.returncode != 0
        assert f"Keep '{first}', the layout of this project" in result.stderr
        assert f"not '{other}'" in result.stderr
        assert texts(project) == before


#: A file of the user's own, with everything that such a file may bring.
LINKS = """import { DurableObject } from "cloudflare:workers";
import { Hono } from "hono";
import type { AppEnv } from "./BASE";
import { ApiError, logInfo } from "./BASE";

/** Counts how often each link is followed. */
export class LinkCounter extends DurableObject<Env> {
	follow(link: string): number {
		const count = (this.ctx.storage.kv.get<number>(link) ?? 0) + 1;
		this.ctx.storage.kv.put(link, count);
		return count;
	}
}

export function linkRoutes(): Hono<AppEnv> {
	const links = new Hono<AppEnv>();
	links.get("/:link{[a-z]+}", async (c) => {
		const counter = c.env.LINK_COUNTER.getByName("all");
		return c.json({ count: await counter.follow(c.req.param("link")) });
	});
	links.get("/:link", () => {
		throw new ApiError(404, "no_such_link", "There is no such link.");
	});
	return links;
}

export async function countLinks(controller: ScheduledController) {
	logInfo("Counting links", { cron: controller.cron });
}

export async function followLinks(batch: MessageBatch, env: Env) {
	for (const message of batch.messages) {
		await env.LINK_COUNTER.getByName("all").follow(String(message.body));
		message.ack();
	}
}
"""

#: Tests of that file.
LINKS_TEST = """import {
	createExecutionContext,
	createMessageBatch,
	createScheduledController,
	getQueueResult,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { expect, it, vi } from "vitest";
import worker from "../src/index";

function get(path: string): Promise<Response> {
	return exports.default.fetch(new Request(`https://example.com${path}`));
}

it("counts in a Durable Object", async () => {
	await get("/api/links/a");
	expect(await (await get("/api/links/a")).json()).toEqual({ count: 2 });
	expect((await get("/api/links/A")).status).toBe(404);
});

it("answers in place of a route of the template", async () => {
	expect(await (await get("/health")).json()).toEqual({ status: "mine" });
});

it("runs its job, and consumes its queue", async () => {
	const log = vi.spyOn(console, "log").mockImplementation(() => {});
	const controller = createScheduledController({ cron: "0 4 * * *" });
	await worker.scheduled(controller, env, createExecutionContext());
	expect(String(log.mock.lastCall)).toContain("Counting links");

	const message = { id: "1", timestamp: new Date(), attempts: 1, body: "b" };
	const batch = createMessageBatch("links", [message]);
	const ctx = createExecutionContext();
	await worker.queue(batch, env, ctx);
	expect((await getQueueResult(batch, ctx)).explicitAcks).toEqual(["1"]);
	expect(await (await get("/api/links/b")).json()).toEqual({ count: 2 });
});
"""


def add_links(project: Path) -> Path:
    """Give a project that file, its tests and its packages; return the project."""
    module = "base" if (project / "src/base.ts").exists() else "index"
    (project / "src/links.ts").write_text(LINKS.replace("BASE", module))
    (project / "test/links.test.ts").write_text(LINKS_TEST)
    names = "countLinks, followLinks, linkRoutes"
    for anchor, insert in {
        "// Your imports": f'import {{ {names} }} from "./links";',
        "// Your middleware": '\napp.get("/health", (c) => '
        'c.json({ status: "mine" }));',
        "// Your code": '\nexport { LinkCounter } from "./links";\n\n'
        'app.route("/api/links", linkRoutes());',
        "\t\t\t// Your queues": "\t\t\tlinks: followLinks,",
        "\t\t\t// Your crons": '\t\t\t"0 4 * * *": countLinks,',
    }.items():
        edit(project, "src/index.ts", anchor, insert)
    binding = '\t"durable_objects": {\n\t\t"bindings": [\n'
    binding += (
        '\t\t\t{ "name": "LINK_COUNTER", "class_name": "LinkCounter" },\n\t\t],\n\t},'
    )
    migration = '{ "tag": "user-links", "new_sqlite_classes": ["LinkCounter"] },'
    own = f'{binding}\n\t"migrations": [\n\t\t{migration}\n\t],'
    edit(project, "wrangler.jsonc", "\t// Your bindings", own)
    edit(project, "wrangler.jsonc", "\t\t\t// Your crons", '\t\t\t"0 4 * * *",')
    return link_toolchain(project)


def test_a_file_of_the_users_own_brings_routes_classes_jobs_and_consumers(
    render: Render,
) -> None:
    few = [feature for feature in FEATURES if oracle.tables([feature])]
    # Without the key that the file brings.
    many = [feature for feature in FEATURES if not oracle.classes([feature])]
    projects = [
        add_links(render(features, layout=layout, project_name=f"{title}-{layout}"))
        for title, features in (("few", few), ("many", many))
        for layout in LAYOUTS
    ]
    assert_clean(*projects)
    assert_tests_pass(*(project / "test/links.test.ts" for project in projects))
