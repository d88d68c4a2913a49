"""What goes into a bundle: the same bytes from the same project, and nothing that must not leave the house."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from qgjob.bundles import choose, expand, write
from qgjob.cli.artifacts import DEFAULT_FOLDER
from qgjob.errors import UsageError

FILES = {
    ".gitignore": "*.log\n/build/\n!keep.log\n",
    ".qgjobignore": "docs/\n",
    "appwright.config.ts": "config",
    "package.json": "{}",
    "package-lock.json": "{}",
    "debug.log": "noise",
    "keep.log": "wanted",
    "build/app.apk": "binary",
    "docs/readme.md": "words",
    "node_modules/appwright/index.js": "code",
    f"{DEFAULT_FOLDER}/12/attempt-1/results.json": "of an earlier run",
    "tests/login.spec.ts": "one",
    "tests/deep/.gitignore": "*.tmp\n",
    "tests/deep/checkout.spec.ts": "two",
    "tests/deep/left.tmp": "noise",
    "tests/helper.ts": "help",
}
PACKED = (
    ".gitignore",
    ".qgjobignore",
    "appwright.config.ts",
    "keep.log",
    "package-lock.json",
    "package.json",
    "tests/deep/.gitignore",
    "tests/deep/checkout.spec.ts",
    "tests/helper.ts",
    "tests/login.spec.ts",
)


def lay_out(folder: Path, names: list[str]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILES[name])
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "project", list(FILES))


def packed(project: Path) -> bytes:
    target = io.BytesIO()
    write(choose(project), target)
    return target.getvalue()


def test_ignore_files_of_every_folder_are_honoured_and_packages_left_out(project: Path) -> None:
    assert choose(project).names == PACKED


def test_same_project_packs_to_the_same_bytes_whoever_made_it_and_when(project: Path, tmp_path: Path) -> None:
    other = lay_out(tmp_path / "elsewhere", list(reversed(FILES)))
    os.utime(other / "package.json", (1, 1))
    (other / "tests" / "helper.ts").chmod(0o600)
    assert packed(project) == packed(other)
    (other / "tests" / "helper.ts").write_text("other")
    assert packed(project) != packed(other)


def test_bundle_holds_the_content_and_who_may_execute(project: Path) -> None:
    (project / "tests" / "helper.ts").chmod(0o755)
    with tarfile.open(fileobj=io.BytesIO(packed(project))) as tar:
        members = {member.name: member for member in tar}
        login = tar.extractfile("tests/login.spec.ts")
        assert login is not None
        assert login.read() == b"one"
    assert tuple(members) == PACKED
    assert [oct(members[name].mode) for name in ("tests/helper.ts", "package.json")] == ["0o755", "0o644"]
    assert {(member.mtime, member.uid, member.uname) for member in members.values()} == {(0, 0, "")}


@pytest.mark.parametrize(
    "name", [".env", ".env.local", "certs/server.key", "tests/upload.keystore", ".npmrc", "id_rsa"]
)
def test_what_looks_like_a_secret_is_refused_unless_it_is_let_in_or_ignored(project: Path, name: str) -> None:
    path = project / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("hunter2")
    with pytest.raises(UsageError, match=f"looks like secrets: {name}") as refusal:
        choose(project)
    assert "--include PATTERN" in refusal.value.hint
    assert name in choose(project, [name]).names
    (project / ".qgjobignore").write_text(f"docs/\n/{name}\n")
    assert choose(project).names == PACKED


def test_example_of_an_environment_is_no_secret(project: Path) -> None:
    (project / ".env.example").write_text("TOKEN=")
    assert ".env.example" in choose(project).names


def test_packages_are_packed_by_who_insists(project: Path) -> None:
    assert "node_modules/appwright/index.js" in choose(project, ["node_modules/"]).names


def test_link_is_refused_unless_it_is_ignored(project: Path) -> None:
    (project / "tests" / "shared").symlink_to("/etc")
    with pytest.raises(UsageError, match="tests/shared is no plain file"):
        choose(project)
    (project / ".qgjobignore").write_text("docs/\n/tests/shared\n")
    assert choose(project).names == PACKED


def test_folder_that_is_none_and_one_with_nothing_in_it_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no directory"):
        choose(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"nothing in .* is left"):
        choose(tmp_path)


@pytest.mark.parametrize(
    ("test", "found"),
    [
        ("tests/**/*.spec.ts", ["tests/deep/checkout.spec.ts", "tests/login.spec.ts"]),
        ("tests/*.spec.ts", ["tests/login.spec.ts"]),
        ("./tests/login.spec.ts", ["tests/login.spec.ts"]),
    ],
)
def test_patterns_stand_for_the_specs_that_are_packed(project: Path, test: str, found: list[str]) -> None:
    assert expand(choose(project), [test, test]) == found


@pytest.mark.parametrize("test", ["tests/nowhere.spec.ts", "e2e/**/*.ts", "build/*.apk"])
def test_spec_that_is_not_packed_is_refused_at_once(project: Path, test: str) -> None:
    with pytest.raises(UsageError, match="no file of the bundle is"):
        expand(choose(project), [test])


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository of several projects, in a folder that has rules which are none of its business."""
    (tmp_path / ".gitignore").write_text("*.ts\n")
    root = tmp_path / "repository"
    lay_out(root / "apps" / "e2e", list(FILES))
    (root / ".git").mkdir()
    return root


def test_ignore_files_above_the_project_are_honoured_up_to_the_root_of_its_repository(repository: Path) -> None:
    (repository / ".gitignore").write_text("*.spec.ts\n/tests/\n/apps/e2e/package.json\n")
    (repository / "apps" / ".qgjobignore").write_text("helper.ts\n!/e2e/tests/login.spec.ts\n")
    left_out = {"tests/deep/checkout.spec.ts", "tests/helper.ts", "package.json"}
    assert choose(repository / "apps" / "e2e").names == tuple(name for name in PACKED if name not in left_out)


def test_rule_of_the_project_outdoes_one_from_above(repository: Path) -> None:
    (repository / ".gitignore").write_text("keep.log\nhelper.ts\n")
    assert choose(repository / "apps" / "e2e").names == tuple(name for name in PACKED if name != "tests/helper.ts")


@pytest.mark.parametrize("rule", ["/apps/", "apps/e2e", "e2e/", "*\n!/src/"])
def test_project_that_is_ignored_as_a_whole_is_packed_when_it_is_named(repository: Path, rule: str) -> None:
    (repository / ".gitignore").write_text(f"{rule}\nhelper.ts\n")
    assert choose(repository / "apps" / "e2e").names == tuple(name for name in PACKED if name != "tests/helper.ts")


def test_rules_outside_of_a_repository_and_above_its_root_are_not_read(repository: Path, project: Path) -> None:
    assert choose(repository / "apps" / "e2e").names == PACKED
    assert choose(project).names == PACKED


def test_link_to_a_project_is_packed_by_the_rules_of_where_it_lies(repository: Path, tmp_path: Path) -> None:
    (repository / ".gitignore").write_text("helper.ts\n")
    (tmp_path / "link").symlink_to(repository / "apps" / "e2e")
    assert "tests/helper.ts" not in choose(tmp_path / "link").names


def test_rules_that_are_no_text_file_of_a_common_size_are_refused(project: Path) -> None:
    (project / ".gitignore").write_bytes(b"a\n" * 600_000)
    with pytest.raises(UsageError, match=r"\.gitignore has over 1024 KiB"):
        choose(project)
