"""Nobody has to trust the template: nothing of it runs on a user's machine.

What else renders projects in these tests may be given trust unnoticed, so this
uses the plain command, as people do.
"""

from pathlib import Path

import pytest
import yaml

from parts import FEATURES
from toolchain import commit, release, run_copier
from workbench import ROOT, copy_template

#: The settings for which Copier demands `--trust`.
UNSAFE_SETTINGS = {"_jinja_extensions", "_migrations", "_tasks"}
#: Copier's exit status when a template would need trust that it does not have.
UNTRUSTED = 4


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The template in a repository of its own, released as 1.0.0."""
    repository = copy_template(tmp_path / "template")
    release(repository, "1.0.0")
    return repository


def settings_of(configuration: Path) -> set[str]:
    """Return the top-level keys of a `copier.yml`, its includes unread."""

    class Loader(yaml.SafeLoader):
        """Reads `!include` as nothing."""

    Loader.add_constructor("!include", lambda loader, node: None)
    documents = yaml.load_all(configuration.read_text(), Loader)
    return {key for document in documents for key in document}


def test_the_configuration_has_nothing_that_needs_trust() -> None:
    assert settings_of(ROOT / "copier.yml").isdisjoint(UNSAFE_SETTINGS)


@pytest.mark.parametrize("setting", sorted(UNSAFE_SETTINGS))
def test_the_check_of_the_configuration_sees_what_needs_trust(
    setting: str, tmp_path: Path
) -> None:
    configuration = tmp_path / "copier.yml"
    text = (ROOT / "copier.yml").read_text()
    configuration.write_text(f"{text}\n{setting}: []\n")
    assert setting in settings_of(configuration)


def test_every_feature_is_copied_and_updated_without_trust(
    repository: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    data = f"--data=features=[{', '.join(FEATURES)}]"
    result = run_copier("copy", "--defaults", data, repository, project)
    assert result.returncode == 0, result.stderr
    commit(project, "Start")
    (repository / "template/NEWS.md").write_text("News\n")
    release(repository, "1.1.0")

    result = run_copier("update", "--defaults", project)

    assert result.returncode == 0, result.stderr
    assert (project / "NEWS.md").read_text() == "News\n"

    # An update to a template with a task would need it.
    commit(project, "Update")
    with (repository / "copier.yml").open("a") as configuration:
        configuration.write("\n_tasks: [exit 0]\n")
    release(repository, "1.2.0")
    result = run_copier("update", "--defaults", project)
    assert result.returncode == UNTRUSTED
    assert "trust" in result.stderr


def test_a_template_with_a_task_could_not_be_copied_without_trust(
    tmp_path: Path,
) -> None:
    unsafe = copy_template(tmp_path / "template")
    with (unsafe / "copier.yml").open("a") as configuration:
        configuration.write("\n_tasks: [exit 0]\n")

    result = run_copier("copy", "--defaults", unsafe, tmp_path / "project")

    assert result.returncode == UNTRUSTED
    assert "trust" in result.stderr
    assert not (tmp_path / "project").exists()
