"""Writes what is made from the features: `python3 tools/write.py [types gallery …]`.

- `javascript`: the JavaScript of all parts, in `javascript/`
- `types`: those of all bindings, for the editor, into `.build/all`
- `gallery`: the projects in `gallery/`
- `readme`: the tables of README.md, and an update there and in docs/updating.md
- `pictures`: a session in a terminal and the page, in `docs/pictures/`

Without a name, all of them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tools import workbench
from tools.workbench import ROOT

SOURCE = "https://github.com/org/cf-templates"
GALLERY = ROOT / "gallery"
JAVASCRIPT = ROOT / "javascript"
README = ROOT / "README.md"
UPDATING = ROOT / "docs/updating.md"
#: The starting point that the gallery has in both layouts and languages.
IN_ALL_FORMS = "realtime"


def catalog(kind: str) -> list[dict]:
    """Returns the descriptions of all features or providers, in their order."""
    import yaml

    paths = ROOT.glob(f"{kind}s/*/{kind}.yml")
    return sorted(
        (yaml.safe_load(path.read_text("utf-8")) for path in paths),
        key=lambda part: part["order"],
    )


def presets() -> list[dict]:
    """Returns the starting points that choose features."""
    import yaml

    known = yaml.safe_load((ROOT / "extensions/presets.yml").read_text("utf-8"))
    return [preset for preset in known if preset["id"] != "custom"]


def make(template: Path, project: Path, **answers: object) -> None:
    """Makes a project in this process.

    Args:
        template: A copy of this checkout, without history.
        project: Where to.
        answers: Its answers, by question.
    """
    import copier

    copier.run_copy(str(template), project, data=answers, defaults=True, quiet=True)


# --- javascript -------------------------------------------------------------------


def write_javascript(folder: Path = JAVASCRIPT) -> None:
    """Writes the JavaScript that `language: javascript` brings, from the TypeScript.

    Args:
        folder: Where to; what is there goes.

    Raises:
        SystemExit: Code is more than JavaScript with types.
    """
    shutil.rmtree(folder, ignore_errors=True)
    script = ROOT / "tools/javascript.mjs"
    workbench.run("Writing JavaScript", [workbench.NODE, script, folder])
    (folder / "README.md").write_text(JAVASCRIPT_README, "utf-8")


JAVASCRIPT_README = """# JavaScript

Generated: `python3 tools/write.py javascript` writes this folder from the TypeScript in
`base/`, `providers/` and `features/`. Change that.
"""


# --- types ------------------------------------------------------------------------


def write_types() -> None:
    """Writes `.build/all`: all features, with the bindings of all providers.

    tsconfig.json takes the types of the bindings from there.
    """
    import json5

    everything = workbench.BUILD / "all"
    shutil.rmtree(everything, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        template = workbench.copy_template(Path(folder))
        features = [feature["id"] for feature in catalog("feature")]
        make(template, everything, features=features)
    config = everything / "wrangler.jsonc"
    merged = json5.loads(config.read_text("utf-8"))
    for provider in catalog("provider"):
        merged |= provider.get("wrangler", {})
        own = {name: var["value"] for name, var in provider["vars"].items()}
        merged["vars"] |= own
        merged["secrets"]["required"] += provider.get("secrets", {})
    # A class is only typed where the client has not to be built first.
    merged.pop("build", None)
    config.write_text(json.dumps(merged), "utf-8")
    (everything / "node_modules").symlink_to(ROOT / "node_modules")
    wrangler = ROOT / "node_modules/wrangler/bin/wrangler.js"
    types = [workbench.NODE, wrangler, "types", "--strict-vars=false"]
    environment = workbench.quiet_environment()
    workbench.run("Writing types", types, cwd=everything, env=environment)


# --- gallery ----------------------------------------------------------------------


def gallery_projects() -> dict[str, dict]:
    """Returns the answers of each project of the gallery, by its name.

    No feature, each starting point, and each feature that no starting point has.
    """
    shown = {feature for preset in presets() for feature in preset["features"]}
    features = [feature["id"] for feature in catalog("feature")]
    sets = {"none": [], **{preset["id"]: preset["features"] for preset in presets()}}
    sets |= {feature: [feature] for feature in features if feature not in shown}
    projects = {name: {"features": features} for name, features in sets.items()}
    plain = projects[IN_ALL_FORMS]
    projects[f"{IN_ALL_FORMS}-single-file"] = {**plain, "layout": "single-file"}
    projects[f"{IN_ALL_FORMS}-javascript"] = {**plain, "language": "javascript"}
    return projects


def version() -> str:
    """Returns the newest release: projects of the gallery are updated from there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return project["project"]["version"]


def write_gallery(folder: Path = GALLERY) -> None:
    """Writes whole projects, each as somebody has it who starts from it.

    Args:
        folder: Where to; what is there goes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as checkout:
        template = workbench.copy_template(Path(checkout))
        for name, answers in gallery_projects().items():
            project = folder / name
            make(template, project, project_name=name, **answers)
            # Each user has secrets of their own.
            (project / ".dev.vars").unlink(missing_ok=True)
            recorded = project / ".copier-answers.yml"
            source = f"_commit: {version()}\n_src_path: gh:org/cf-templates"
            text = recorded.read_text("utf-8")
            text = re.sub("(?m)^_src_path: .*$", source, text)
            recorded.write_text(text, "utf-8")
            readme = project / "README.md"
            text = readme.read_text("utf-8")
            # Right below a line that no update changes.
            first = re.search("(?m)^A Cloudflare Worker, made with .*\n", text)
            assert first is not None
            at = first.end()
            readme.write_text(f"{text[:at]}{deploy_button(name)}\n{text[at:]}", "utf-8")
    rows = "".join(
        f"| [{name}]({name}) | {code(answers['features']) or 'none'} "
        f"| {layout_of(folder / name)} | {deploy_button(name)} |\n"
        for name, answers in gallery_projects().items()
    )
    text = GALLERY_README.replace("ROWS\n", rows).replace("VERSION", version())
    (folder / "README.md").write_text(text, "utf-8")


GALLERY_README = f"""# Gallery

Projects as the template writes them: to read, or to start from without Copier.

| project | features | code in | |
| --- | --- | --- | --- |
ROWS

```sh
npm create cloudflare@latest myapp -- --template={SOURCE}/tree/VERSION/gallery/realtime
cd myapp
cp .dev.vars.example .dev.vars  # openssl rand -hex 32 makes a good API_TOKEN
npm run dev
```

A copy of the folder does as well, followed by `npm install`. Then give the project its
name, as `name` in `wrangler.jsonc` and in `package.json`, delete the button in its
README, which deploys ours, and commit. From here on, `uvx copier update` works as if
Copier had made the project. The first one, before the first deploy, takes your name
into the README, and into those of queues, databases and the like:

```sh
uvx copier update --skip-answered --data project_name=myapp --data resource_name=myapp
```

`npm create cloudflare` prints `wrangler.jsonc` anew: without the commas at the ends of
lists, and without the flags and the traces. Put back `compatibility_flags` and
`observability`. Where an update adds to such a list, Git shows a conflict: keep both
entries. A plain copy of the folder changes nothing.

`python3 tools/write.py gallery` writes this folder.
"""


def deploy_button(name: str) -> str:
    """Returns the button that deploys a project of the gallery, as Markdown."""
    button = "https://deploy.workers.cloudflare.com"
    return (
        f"[![Deploy to Cloudflare]({button}/button)]"
        f"({button}/?url={SOURCE}/tree/{version()}/gallery/{name})"
    )


def layout_of(project: Path) -> str:
    """Returns where a project's code is, and whether it is JavaScript."""
    layout = "modules" if [*project.glob("src/base.*")] else "one file"
    is_javascript = (project / "jsconfig.json").exists()
    return f"{layout}, in JavaScript" if is_javascript else layout


def code(ids: list[str]) -> str:
    """Returns ids as a list in Markdown."""
    return ", ".join(f"`{name}`" for name in ids)


# --- readme -----------------------------------------------------------------------


def readme() -> str:
    """Returns README.md with what it says of the features and of the toolchain."""
    manifest = json.loads((ROOT / "package.json").read_text("utf-8"))
    oldest, newest = manifest["config"]["compatibilityDates"]
    text = README.read_text("utf-8")
    head = ("group", "feature", "what the Worker gets")
    text = filled(text, "features", head, features())
    rows = [(f"`{one['id']}`", code(one["features"]), one["help"]) for one in presets()]
    text = filled(text, "presets", ("starting point", "features", "for"), rows)
    dates = r"(\| `compatibility_date` \| from )\S+ to [\d-]+(.*\| )[\d-]+( \|)"
    return re.sub(dates, rf"\g<1>{oldest} to {newest}\g<2>{newest}\g<3>", text)


def features() -> list[tuple[str, str, str]]:
    """Returns the group, the id and the help of each feature, in the menu's order."""
    parts = sorted(catalog("feature"), key=lambda part: (part["group"], part["order"]))
    return [(part["group"], f"`{part['id']}`", part["help"]) for part in parts]


def filled(text: str, mark: str, head: tuple, rows: list[tuple]) -> str:
    """Returns a text with a table between `<!-- mark -->` and `<!-- /mark -->`."""
    lines = [head, ("---",) * len(head), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return between(text, mark, table)


def between(text: str, mark: str, new: str) -> str:
    """Returns a text with another one between `<!-- mark -->` and `<!-- /mark -->`."""
    before, opening, rest = text.partition(f"<!-- {mark} -->\n")
    _, closing, after = rest.partition(f"\n<!-- /{mark} -->")
    assert closing, mark
    return f"{before}{opening}\n{new}\n{closing}{after}"


def with_update() -> dict[Path, str]:
    """Returns README.md, and the guide to updates, with an update that happened."""
    hunk, session = update_session()
    return {
        README: between(readme(), "diff", hunk),
        UPDATING: between(UPDATING.read_text("utf-8"), "session", session),
    }


def write_readme() -> None:
    """Writes README.md and the guide to updates anew."""
    for path, text in with_update().items():
        path.write_text(text, "utf-8")


#: A route of the user's own.
OWN = 'app.get("/api/mine", (c) => c.text("mine"));\n'
#: The command that asks for the features alone.
CHOOSE = "copier update --skip-answered --ask features"


def update_session() -> tuple[str, str]:
    """Returns what an update that adds `analytics` does to an edited project.

    Returns:
        The change of its wrangler.jsonc, and the whole session, as Markdown.
    """
    import pexpect

    environment = {
        **workbench.quiet_environment(),
        **{f"GIT_{role}_NAME": "Ada" for role in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{role}_EMAIL": "ada@example.com" for role in ("AUTHOR", "COMMITTER")},
    }
    with tempfile.TemporaryDirectory() as name:
        template = workbench.copy_template(Path(name, "template"))
        project = Path(name, "myapp")

        def run(folder: Path, command: str) -> str:
            return subprocess.run(
                ["bash", "-c", command],
                cwd=folder,
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            ).stdout

        commit = "git init && git add --all && git commit --message Start"
        run(template, f"{commit} && git tag 0.1.0")
        run(template, f"copier copy --defaults {template} {project}")
        source = project / "src/index.ts"
        text = source.read_text("utf-8")
        source.write_text(text.replace("// Your code\n", f"// Your code\n\n{OWN}"))
        run(project, commit)
        menu = [row[1] for row in features()]
        update = pexpect.spawn(
            "bash",
            ["-c", CHOOSE],
            cwd=str(project),
            env=environment,
            dimensions=(60, 80),
            encoding="utf-8",
        )
        update.expect("What should it do")
        update.send("\x1b[B" * menu.index("`analytics`") + " \r")
        update.expect(pexpect.EOF)
        update.close()
        assert update.exitstatus == 0
        stat = run(project, "git add . && git diff --staged --stat")
        diffs = [
            run(project, f"git diff --staged --unified={lines} {path}")
            for path, lines in (("src/index.ts", 1), ("wrangler.jsonc", 0))
        ]
    # Without the lines that name the files.
    code, config = (
        "".join(re.split("(?m)^(?=@@)", diff, maxsplit=1)[1:]) for diff in diffs
    )
    shown = f"$ uvx {CHOOSE}\n$ git add . && git diff --staged --stat\n{stat}"
    shown += f"$ git diff --staged src/index.ts\n{code}"
    return (
        f"```diff\n$ uvx {CHOOSE}\n{config}```",
        f"```ts\n// Your code\n\n{OWN}```\n\n```diff\n{shown}```",
    )


# --- pictures ---------------------------------------------------------------------


def write_pictures() -> None:
    """Writes the pictures of README.md: a session, and the demo of `realtime`."""
    from tools import pictures

    sys.path += [str(ROOT / "tests"), str(ROOT / "tools")]
    from demo import started_chromium, take_picture
    from dev_server import serve

    folder = ROOT / "docs/pictures"
    pictures.write_session(folder / "session.svg")
    with tempfile.TemporaryDirectory() as name, started_chromium() as chromium:
        template = workbench.copy_template(Path(name, "template"))
        project = Path(name, "my-worker")
        make(template, project, preset="realtime")
        (project / "node_modules").symlink_to(ROOT / "node_modules")
        with serve(project) as server:
            take_picture(folder / "page.png", chromium, server)


WRITERS = {
    "javascript": write_javascript,
    "types": write_types,
    "gallery": write_gallery,
    "readme": write_readme,
    "pictures": write_pictures,
}


def main() -> None:
    """Does what the command line says, with the packages of `.venv`."""
    names = sys.argv[1:] or list(WRITERS)
    if not set(names) <= set(WRITERS):
        sys.exit(__doc__)
    workbench.set_up_python()
    workbench.set_up_npm("Setting up npm packages in node_modules")
    if "pictures" in names:
        workbench.set_up_programs()
    if Path(sys.prefix) != workbench.VENV:
        os.execv(workbench.PYTHON, [workbench.PYTHON, *sys.argv])
    for name in names:
        WRITERS[name]()


if __name__ == "__main__":
    main()
