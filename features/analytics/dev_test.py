"""The SQL of the guide of `analytics`, on what the Worker writes."""

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from projects import config, edit, readme
from test_readme import blocks_of
from toolchain import link_toolchain, run_tests

Render = Callable[..., Path]

#: Data points by the events that make them. A list of a data point fills the columns
#: that begin with its name: `indexes` fills `index1`.
WRITTEN = [
    (
        {"userId": "ada", "event": "purchase", "value": 10},
        {"indexes": ["ada"], "blobs": ["purchase"], "doubles": [10]},
    ),
    (
        {"userId": "ada", "event": "purchase", "value": 20},
        {"indexes": ["ada"], "blobs": ["purchase"], "doubles": [20]},
    ),
    (
        {"userId": "grace", "event": "signup"},
        {"indexes": ["grace"], "blobs": ["signup"], "doubles": [1]},
    ),
]
#: How many events each of these stands for, once sampled.
INTERVALS = [1, 9, 4]
#: Code of a user's own that records what its path says, as the guide has it.
SEEN = """
app.get("/api/seen/:userId", (c) => {
	writeEvent(c.env, { userId: c.req.param("userId"), event: "seen", value: 1 });
	return c.body(null, 204);
});
"""
PROBE = """
import { env, exports } from "cloudflare:workers";
import { expect, it, vi } from "vitest";

it("writes what the SQL reads", async () => {
	const write = vi.spyOn(env.USER_EVENTS, "writeDataPoint");
	for (const event of %s) {
		const headers = { "Content-Type": "application/json" };
		const init = { method: "POST", headers, body: JSON.stringify(event) };
		const url = "https://example.com/events";
		await exports.default.fetch(new Request(url, init));
	}
	await exports.default.fetch("https://example.com/api/seen/bob");
	const seen = { indexes: ["bob"], blobs: ["seen"], doubles: [1] };
	expect(write.mock.calls.flat()).toEqual([...%s, seen]);
});
"""


def query(project: Path) -> str:
    """Return the SQL of a project's README."""
    (sql,) = [b.code for b in blocks_of(readme(project)) if b.kind == "sql"]
    return sql


@pytest.mark.full
def test_the_worker_writes_the_columns_that_the_sql_reads(render: Render) -> None:
    project = link_toolchain(render(["analytics"]))
    edit(project, "src/index.ts", "// Your code", SEEN)
    probe = PROBE % tuple(map(json.dumps, zip(*WRITTEN, strict=True)))
    (project / "test/probe.test.ts").write_text(probe)
    run_tests(project, "test/probe.test.ts")


def test_the_sums_of_the_guide_count_what_sampling_left_out(render: Render) -> None:
    sql = query(render(["analytics"], project_name="app"))
    database = sqlite3.connect(":memory:")
    database.execute(
        "CREATE TABLE app_events (timestamp, index1, blob1, double1, _sample_interval)"
    )
    rows = [
        (*point["indexes"], *point["blobs"], *point["doubles"], interval)
        for (_, point), interval in zip(WRITTEN, INTERVALS, strict=True)
    ]
    database.executemany("INSERT INTO app_events VALUES (1, ?, ?, ?, ?)", rows)

    # SQLite has no intervals.
    answer = database.execute(re.sub(r"NOW\(\) - INTERVAL '\d+' DAY", "0", sql))

    names = [column[0] for column in answer.description]
    assert names == ["userId", "event", "times", "value"]
    assert answer.fetchall() == [
        ("ada", "purchase", 10, 190),
        ("grace", "signup", 4, 4),
    ]


@pytest.mark.parametrize("name", ["app", "my-first-worker"])
def test_the_sql_of_the_guide_reads_the_dataset_of_the_binding(
    render: Render, name: str
) -> None:
    project = render(["analytics"], project_name=name)
    dataset = f"{name.replace('-', '_')}_events"
    assert config(project)["analytics_engine_datasets"] == [
        {"binding": "USER_EVENTS", "dataset": dataset}
    ]
    assert re.findall(r"^FROM (\w+)$", query(project), re.MULTILINE) == [dataset]
