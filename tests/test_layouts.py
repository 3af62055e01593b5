"""Both layouts, and files of the user's own in each, as the README shows them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import (
    FEATURES,
    assert_clean,
    assert_tests_pass,
    link_toolchain,
    run_copier,
)
from projects import edit, texts
from test_readme import blocks_of

Render = Callable[..., Path]

LAYOUTS = ["single-file", "modules"]

#: A test of the file that the README shows.
LINKS_TEST = """import {
	createExecutionContext,
	createMessageBatch,
	createScheduledController,
	getQueueResult,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { expect, it, vi } from "vitest";
import worker from "../src/index";

/** Follows a link. */
function follow(link: string): Promise<Response> {
	const url = `https://example.com/api/links/${link}`;
	return exports.default.fetch(new Request(url));
}

it("counts in a Durable Object", async () => {
	await follow("a");
	expect(await (await follow("a")).json()).toEqual({ count: 2 });
});

it("answers in place of a route of the template", async () => {
	const request = new Request("https://example.com/health");
	const response = await exports.default.fetch(request);
	expect(await response.json()).toEqual({ status: "mine" });
});

it("throws what the base offers", async () => {
	expect((await follow("A")).status).toBe(404);
});

it("runs its job", async () => {
	const log = vi.spyOn(console, "log").mockImplementation(() => {});
	const controller = createScheduledController({ cron: "0 4 * * *" });
	await worker.scheduled(controller, env, createExecutionContext());
	expect(String(log.mock.lastCall)).toContain("Counting links");
});

it("consumes a queue", async () => {
	const message = { id: "1", timestamp: new Date(), attempts: 1, body: "a" };
	const batch = createMessageBatch("links", [message]);
	const ctx = createExecutionContext();
	await worker.queue(batch, env, ctx);
	const { explicitAcks } = await getQueueResult(batch, ctx);
	expect(explicitAcks).toEqual(["1"]);
	expect(await (await follow("a")).json()).toEqual({ count: 4 });
});
"""


#: A consumer, which joins in the same way, as the README says.
CONSUMER = """
/** Follows the links that are in a queue. */
export async function consumeLinks(
	batch: MessageBatch,
	env: Env,
): Promise<void> {
	for (const message of batch.messages) {
		await env.LINK_COUNTER.getByName("all").follow(String(message.body));
		message.ack();
	}
}
"""


def test_modules_are_the_sections_of_the_one_file(render: Render) -> None:
    (one,) = (render(FEATURES) / "src").iterdir()
    sections = set(re.findall(r"^// #region (.+)$", one.read_text(), re.MULTILINE))
    modules = {
        path.stem for path in (render(FEATURES, layout="modules") / "src").iterdir()
    }
    assert modules == sections | {"index"}


@pytest.mark.parametrize("features", [[], ["auth"], FEATURES], ids=len)
def test_the_index_of_modules_has_the_anchors_in_their_order(
    render: Render, features: list[str]
) -> None:
    files = texts(render(features, layout="modules"))
    anchors = re.findall(r"^\t?// Your (.+)$", files["src/index.ts"], re.MULTILINE)
    assert anchors == ["imports", "middleware", "code", "queues", "crons", "handlers"]
    assert "\t// Your variables\n" in files["src/http.ts"]


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


def test_a_file_of_the_users_own_works_as_the_readme_shows(render: Render) -> None:
    projects = [
        add_file(render(features, layout=layout, project_name=f"{title}-{layout}"))
        for title, features in {"bare": [], "site": ["assets", "auth"]}.items()
        for layout in LAYOUTS
    ]
    assert_clean(*projects)
    assert_tests_pass(*(project / "test/links.test.ts" for project in projects))


def add_file(project: Path) -> Path:
    """Give a project a file, as its README shows, and its packages; return it."""
    readme = (project / "README.md").read_text()
    (own,) = [b.code for b in blocks_of(readme) if b.code.startswith("// src/links.ts")]
    (project / "src/links.ts").write_text(own + CONSUMER)
    (lines,) = [b.code for b in blocks_of(readme) if b.code.startswith("// Your imp")]
    for anchor, insert in re.findall(r"(\t*// Your \w+)\n((?:(?!\t*// ).*\n)+)", lines):
        insert = insert.rstrip().replace("countLinks, ", "consumeLinks, countLinks, ")
        edit(project, "src/index.ts", anchor, insert)
    edit(project, "src/index.ts", "\t// Your queues", "\tlinks: consumeLinks,")
    route = '\napp.get("/health", (c) => c.json({ status: "mine" }));'
    edit(project, "src/index.ts", "// Your middleware", route)
    binding = '\t\t\t{ "name": "LINK_COUNTER", "class_name": "LinkCounter" },'
    migration = '\t\t{ "tag": "user-links", "new_sqlite_classes": ["LinkCounter"] },'
    for line, insert in (
        ("\t\t\t// Your durable_objects", binding),
        (
            '\t\t// Your migrations before v1 (tags that start with "user-")',
            migration,
        ),
        ("\t\t\t// Your crons", '\t\t\t"0 4 * * *",'),
    ):
        edit(project, "wrangler.jsonc", line, insert)
    (project / "test/links.test.ts").write_text(LINKS_TEST)
    return link_toolchain(project)


def test_each_module_with_a_place_for_the_user_takes_imports(
    render: Callable[..., Path],
) -> None:
    project = render(FEATURES, layout="modules")
    modules = [path.read_text() for path in (project / "src").glob("*.ts")]
    places = [text for text in modules if "// Your " in text]
    assert len(places) > 5
    for text in places:
        above, _, below = text.partition("\n// Your imports\n")
        assert re.search(r"^import ", above, re.MULTILINE)
        assert not re.search(r"^import ", below, re.MULTILINE)
