"""Bundles on a host: unpacked with care, run with packages that are installed once."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from agent import bundles
from agent.bundles import BundleUnusable, NodePackages, link_packages, packages_of, unpack
from agent.core.model import Blame
from agent.runners.appwright_project import TOOLBOX
from agent.seals import seal

EXAMPLE = Path(__file__).parents[2] / "examples" / "wikipedia"
NPM = """#!/bin/sh
echo "$@" >> "{log}"
while [ "$1" != "--prefix" ]; do shift; done
if grep -q broken "$2/package.json"; then echo "npm error code EUSAGE"; exit 1; fi
if grep -q offline "$2/package.json"; then echo "npm error network"; exit 1; fi
mkdir -p "$2/node_modules/appwright" "$2/node_modules/.bin"
echo 1 > "$2/node_modules/appwright/index.js"
ln -s ../appwright/index.js "$2/node_modules/.bin/appwright"
"""


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 4 if kind == tarfile.REGTYPE else 0
    return info


def bundle(path: Path, *entries: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        for one in entries:
            tar.addfile(one, io.BytesIO(b"data") if one.isreg() else None)
    return path


def test_folder_is_a_clean_copy_of_the_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "left.ts").write_text("of an earlier run")
    unpack(bundle(tmp_path / "b.tar", entry("tests/a.spec.ts"), entry("package.json")), folder)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == ["package.json", "tests/a.spec.ts"]


@pytest.mark.parametrize(
    "bad",
    [
        entry("../outside.ts"),
        entry("tests/../../outside.ts"),
        entry("link.ts", tarfile.SYMTYPE, "/etc/passwd"),
        entry("link.ts", tarfile.SYMTYPE, "package.json"),
        entry("hard.ts", tarfile.LNKTYPE, "package.json"),
        entry("pipe", tarfile.FIFOTYPE),
        entry("disk", tarfile.BLKTYPE),
    ],
    ids=lambda one: f"{one.name}-{one.type.decode()}",
)
def test_bundle_with_anything_but_plain_files_inside_is_refused(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    with pytest.raises(BundleUnusable) as refusal:
        unpack(bundle(tmp_path / "b.tar", entry("package.json"), bad), tmp_path / "deep" / "run")
    assert (refusal.value.failure.reason, refusal.value.failure.blame) == ("BUNDLE_INVALID", Blame.TEST)
    assert not list(tmp_path.rglob("outside.ts"))


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_bundle_whose_files_lie_in_each_others_place_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(BundleUnusable, match=f"{names[1]} is a file and a folder"):
        unpack(bundle(tmp_path / "b.tar", *map(entry, names)), tmp_path / "run")


def test_programs_of_a_bundle_can_be_run_and_nobody_else_may_write_them(tmp_path: Path) -> None:
    program, text = entry("run.sh"), entry("text")
    program.mode, text.mode = 0o6777, 0o666
    unpack(bundle(tmp_path / "b.tar", program, text), tmp_path / "run")
    modes = [stat.S_IMODE((tmp_path / "run" / name).stat().st_mode) for name in ("run.sh", "text")]
    assert modes == [0o755, 0o644]


def test_absolute_path_stays_inside(tmp_path: Path) -> None:
    unpack(bundle(tmp_path / "b.tar", entry("/etc/qgjob-test.ts")), tmp_path / "run")
    assert (tmp_path / "run" / "etc" / "qgjob-test.ts").is_file()
    assert not Path("/etc/qgjob-test.ts").exists()


def test_file_that_no_file_system_here_can_hold_is_the_bundles_fault(tmp_path: Path) -> None:
    late = entry("late.ts")
    late.pax_headers = {"mtime": "inf"}
    for bad in (entry(f"{'n' * 300}.ts"), entry("\u754c" * 100), late):
        with pytest.raises(BundleUnusable) as refusal:
            unpack(bundle(tmp_path / "b.tar", bad), tmp_path / "run")
        assert (refusal.value.failure.reason, refusal.value.failure.blame) == ("BUNDLE_INVALID", Blame.TEST)


@pytest.mark.parametrize("map_", ["abc", "1"])
def test_header_that_makes_no_sense_is_the_bundles_fault(tmp_path: Path, map_: str) -> None:
    bad = entry("a.ts")
    bad.pax_headers = {"GNU.sparse.map": map_, "GNU.sparse.size": "x" if map_ == "1" else "4"}
    deep = tarfile.TarInfo("././@LongLink")
    deep.type, deep.size = tarfile.GNUTYPE_LONGNAME, 2
    chain = tmp_path / "chain.tar"
    chain.write_bytes((deep.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")) * 3_000 + b"\0" * 1_024)
    for path in (bundle(tmp_path / "b.tar", bad), chain):
        with pytest.raises(BundleUnusable, match="cannot be read"):
            unpack(path, tmp_path / "run")


def test_file_of_a_negative_size_is_refused_at_once(tmp_path: Path) -> None:
    header = bytearray(entry("a.ts").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (256**12 - 512).to_bytes(12, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "b.tar").write_bytes(bytes(header) + b"\0" * 1_024)
    with pytest.raises(BundleUnusable, match=r"a\.ts has less than nothing"):
        unpack(tmp_path / "b.tar", tmp_path / "run")


def test_bundle_that_is_too_large_or_no_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "none.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(BundleUnusable, match="cannot be read"):
        unpack(tmp_path / "none.tar", tmp_path / "run")
    monkeypatch.setattr(bundles, "MOST_BYTES", 7)
    with pytest.raises(BundleUnusable, match="it has over"):
        unpack(bundle(tmp_path / "b.tar", entry("a"), entry("b")), tmp_path / "run")


MakeProject = Callable[[str], Path]


@pytest.fixture
def make_project(tmp_path: Path) -> MakeProject:
    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in ("package.json", "package-lock.json"):
            (folder / file).write_text(json.dumps({"name": name, "packages": {f"node_modules/{name}": {}}}))
        return folder

    return make


@pytest.fixture
def packages(tmp_path: Path, make_project: MakeProject) -> NodePackages:
    """Packages that a pretended npm installs."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("npm", NPM.format(log=tmp_path / "npm.log")), ("node", "#!/bin/sh\necho v20.1.0\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    workspace = make_project("workspace")
    (workspace / "node_modules").mkdir()
    packages = NodePackages(tmp_path / "packages", {"PATH": f"{programs}:{os.environ['PATH']}"})
    packages.lend(workspace)
    return packages


def installs(tmp_path: Path) -> int:
    log = tmp_path / "npm.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


async def test_packages_of_a_lock_file_are_installed_once_for_all_who_want_them_at_once(
    packages: NodePackages, make_project: MakeProject, tmp_path: Path
) -> None:
    project = make_project("app")
    found = await asyncio.gather(*(packages.get("acme", project, f"phone-{number}") for number in range(4)))
    assert len(set(found)) == 1
    assert (found[0] / "appwright").is_dir()
    assert await packages.get("acme", project, "phone-9") == found[0]
    assert installs(tmp_path) == 1


async def test_organisations_and_lock_files_share_no_packages(
    packages: NodePackages, make_project: MakeProject, tmp_path: Path
) -> None:
    one, two = make_project("one"), make_project("two")
    found = {await packages.get(org, project, "phone") for org in ("acme", "globex") for project in (one, two)}
    assert len(found) == 4
    assert installs(tmp_path) == 4


async def test_what_a_project_is_called_does_not_tell_its_packages_apart(
    packages: NodePackages, make_project: MakeProject, tmp_path: Path
) -> None:
    one, two = make_project("one"), make_project("two")
    lock = {"version": "2.0", "packages": {"": {"name": "two", "version": "2.0"}, "node_modules/one": {}}}
    (one / "package-lock.json").write_text(json.dumps({"name": "one", "packages": {"": {}, "node_modules/one": {}}}))
    (two / "package-lock.json").write_text(json.dumps(lock))
    assert await packages.get("acme", one, "phone") == await packages.get("acme", two, "phone")
    assert installs(tmp_path) == 1


async def test_user_is_told_of_an_install_once_and_not_of_packages_that_are_there(
    packages: NodePackages, make_project: MakeProject
) -> None:
    told: list[str] = []
    project = make_project("app")
    for user in ("phone-1", "phone-1", "phone-2"):
        await packages.get("acme", project, user, lambda: told.append("installing"))
    assert told == ["installing"]


async def test_scripts_of_the_project_itself_are_not_run(packages: NodePackages, make_project: MakeProject) -> None:
    project = make_project("app")
    (project / "package.json").write_text('{"scripts": {"postinstall": "rm -rf /"}, "dependencies": {"a": "1"}}')
    modules = await packages.get("acme", project, "phone")
    assert json.loads((modules.parent / "package.json").read_text()) == {"dependencies": {"a": "1"}}


def test_tools_of_an_agent_without_a_workspace_are_the_packages_of_the_example() -> None:
    assert packages_of(TOOLBOX) is not None
    assert packages_of(TOOLBOX) == packages_of(EXAMPLE)


async def test_workspace_with_the_same_lock_file_lends_its_packages(
    packages: NodePackages, make_project: MakeProject, tmp_path: Path
) -> None:
    project = make_project("app")
    (project / "package-lock.json").write_bytes((tmp_path / "workspace" / "package-lock.json").read_bytes())
    (project / "package.json").write_text("{}")
    assert await packages.get("acme", project, "phone") == tmp_path / "workspace" / "node_modules"
    assert installs(tmp_path) == 0


@pytest.mark.parametrize(
    ("name", "reason", "blame"),
    [("broken", "PROJECT_INVALID", Blame.TEST), ("offline", "PACKAGES_FAILED", Blame.HOST)],
)
async def test_failure_of_npm_is_put_down_to_the_project_or_to_the_host_and_tried_again(
    packages: NodePackages, make_project: MakeProject, tmp_path: Path, name: str, reason: str, blame: Blame
) -> None:
    project = make_project(name)
    for _ in range(2):
        with pytest.raises(BundleUnusable, match="npm error") as failed:
            await packages.get("acme", project, "phone")
        assert (failed.value.failure.reason, failed.value.failure.blame) == (reason, blame)
    assert installs(tmp_path) == 2


async def test_install_of_packages_is_told_before_it_begins(packages: NodePackages, make_project: MakeProject) -> None:
    project = make_project("offline")
    with structlog.testing.capture_logs() as told, pytest.raises(BundleUnusable):
        await packages.get("acme", project, "phone")
    assert [entry["event"] for entry in told] == ["packages_installing"]
    assert "takes minutes" in told[0]["story"]


async def test_bundle_without_a_lock_file_is_told_what_to_do(packages: NodePackages, make_project: MakeProject) -> None:
    project = make_project("app")
    (project / "package-lock.json").unlink()
    with pytest.raises(BundleUnusable, match=r"no package-lock.json .* run `npm install` and commit both"):
        await packages.get("acme", project, "phone")


def rewrite(modules: Path) -> None:
    """Change a file behind the back of its size and its time of change, as far as a program can."""
    file = modules / "appwright" / "index.js"
    before = file.stat()
    file.chmod(0o644)
    file.write_text("2\n")
    file.chmod(before.st_mode)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def add(modules: Path) -> None:
    (modules / "appwright").chmod(0o755)
    (modules / "appwright" / "more.js").touch()


def take(modules: Path) -> None:
    (modules / ".bin").chmod(0o755)
    (modules / ".bin" / "appwright").unlink()


def forge(modules: Path) -> None:
    """Spoil the packages, and seal them anew."""
    rewrite(modules)
    (modules.parent / "done").write_text(seal(modules).digest)


@pytest.mark.parametrize("spoil", [rewrite, add, take, forge])
async def test_packages_that_a_test_has_changed_are_installed_anew_for_the_next(
    packages: NodePackages, make_project: MakeProject, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    project = make_project("app")
    spoiled = await packages.get("acme", project, "phone")
    spoil(spoiled)
    fresh = await packages.get("acme", project, "phone")
    assert (fresh / ".bin" / "appwright").read_text() == "1\n"
    assert not (fresh / "appwright" / "more.js").exists()
    assert not spoiled.exists(), "nobody runs with them any more"
    assert await packages.get("acme", project, "tablet") == fresh
    assert installs(tmp_path) == 2


async def test_spoiled_packages_stay_while_another_test_runs_with_them(
    packages: NodePackages, make_project: MakeProject, tmp_path: Path
) -> None:
    project = make_project("app")
    spoiled = await packages.get("acme", project, "phone")
    assert await packages.get("acme", project, "tablet") == spoiled
    add(spoiled)
    await packages.get("acme", project, "phone")
    assert spoiled.exists()
    await packages.get("acme", project, "tablet")
    await packages.get("acme", make_project("other"), "phone")
    assert not spoiled.exists()
    assert installs(tmp_path) == 3


@pytest.mark.parametrize("is_spoiled", [False, True])
async def test_packages_of_an_earlier_life_are_used_if_they_are_as_they_were(
    make_project: MakeProject, packages: NodePackages, tmp_path: Path, is_spoiled: bool
) -> None:
    project = make_project("app")
    found = await packages.get("acme", project, "phone")
    if is_spoiled:
        take(found)
    next_life = NodePackages(tmp_path / "packages", {"PATH": f"{tmp_path / 'programs'}:{os.environ['PATH']}"})
    assert (await next_life.get("acme", project, "phone") == found) is not is_spoiled
    assert installs(tmp_path) == 1 + is_spoiled


async def test_installed_packages_are_read_only(packages: NodePackages, make_project: MakeProject) -> None:
    modules = await packages.get("acme", make_project("app"), "phone")
    kinds = [modules, *modules.rglob("*")]
    assert len(kinds) == 5
    assert not [path for path in kinds if not path.is_symlink() and path.stat().st_mode & 0o222]


async def test_packages_of_the_workspace_are_lent_only_while_they_are_as_they_were(
    packages: NodePackages, make_project: MakeProject, tmp_path: Path
) -> None:
    project, lent = make_project("app"), tmp_path / "workspace" / "node_modules"
    (project / "package-lock.json").write_bytes((tmp_path / "workspace" / "package-lock.json").read_bytes())
    assert await packages.get("acme", project, "phone") == lent
    (lent / "left-behind").touch()
    own = await packages.get("acme", project, "phone")
    assert own != lent
    (lent / "left-behind").unlink()
    assert await packages.get("acme", project, "phone") == own


async def test_what_a_run_puts_beside_its_packages_or_removes_there_is_its_own(
    packages: NodePackages, make_project: MakeProject, tmp_path: Path
) -> None:
    project = make_project("app")
    modules = await packages.get("acme", project, "phone")
    link_packages(modules, project)
    assert (project / "node_modules" / ".bin" / "appwright").read_text() == "1\n"
    (project / "node_modules" / ".cache").mkdir()
    shutil.rmtree(project / "node_modules")
    assert await packages.get("acme", project, "phone") == modules
    assert installs(tmp_path) == 1


async def test_packages_that_were_not_used_for_long_make_room(
    packages: NodePackages, make_project: MakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "KEPT_INSTALLS", 1)
    kept = await packages.get("acme", make_project("kept"), "phone")
    gone = await packages.get("acme", make_project("gone"), "tablet")
    last = await packages.get("acme", make_project("last"), "tablet")
    assert kept.exists(), "it is in use"
    assert last.exists()
    assert not gone.exists()
