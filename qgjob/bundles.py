"""Packs an AppWright project into one file: the same project gives the same bytes, whoever packs it and when.

What `.gitignore` and `.qgjobignore` name is left out, and `node_modules` always: agents install packages by the lock
file. So is what `qgjob artifacts download` left there: it would make each bundle another one. What looks like a secret
is refused, for a bundle is kept by the lab and read by its agents.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pathspec import GitIgnoreSpec

from qgjob.errors import UsageError
from qgjob.ignored import IgnoreRules

ALWAYS_LEFT_OUT = (".git/", ".hg/", ".svn/", "node_modules/", "/qgjob-artifacts/")
SECRETS = GitIgnoreSpec.from_lines(
    (
        ".env",
        ".env.*",
        "!.env.example",
        "!.env.sample",
        "!.env.template",
        "*.pem",
        "*.key",
        "*.p8",
        "*.p12",
        "*.pfx",
        "*.jks",
        "*.keystore",
        "id_rsa*",
        "id_ecdsa*",
        "id_ed25519*",
        ".npmrc",
        ".netrc",
        ".ssh/",
        ".aws/",
    )
)
MOST_FILES = 20_000
MOST_BYTES = 512 * 1_024 * 1_024
MOST_NAMED = 5
MARKS = "*?["


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """What goes into a bundle."""

    directory: Path
    names: tuple[str, ...]
    """Paths of the files inside the project, with slashes, sorted."""


def choose(directory: Path, allowed: Sequence[str] = ()) -> Packing:
    """Return what of a project goes into its bundle.

    Args:
        directory: The project.
        allowed: Patterns, as in a .gitignore, of what is packed though it looks like a secret, or is always left out.

    Raises:
        UsageError: There is no project, or something in it must not be packed.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory} is no directory", hint="name the project's own folder with --bundle")
    chosen: list[str] = []
    secret: list[str] = []
    let_in = GitIgnoreSpec.from_lines(allowed)
    for name in _walk(directory, let_in):
        (secret if SECRETS.match_file(name) and not let_in.match_file(name) else chosen).append(name)
    if secret:
        more = f" and {len(secret) - MOST_NAMED} more" if len(secret) > MOST_NAMED else ""
        raise UsageError(
            f"the project holds what looks like secrets: {', '.join(secret[:MOST_NAMED])}{more}",
            hint="name them in .qgjobignore, or say --include PATTERN if a test needs them",
        )
    if not chosen:
        raise UsageError(f"nothing in {directory} is left to pack", hint="look at .gitignore and .qgjobignore")
    if len(chosen) > MOST_FILES:
        raise UsageError(
            f"{directory} has {len(chosen)} files to pack, and {MOST_FILES} is the limit",
            hint="name what tests do not need in .qgjobignore",
        )
    return Packing(directory=directory, names=tuple(sorted(chosen)))


def _walk(directory: Path, let_in: GitIgnoreSpec) -> Iterator[str]:
    """Yield the files that are not left out."""
    rules = IgnoreRules(directory)
    always = GitIgnoreSpec.from_lines(ALWAYS_LEFT_OUT)

    def is_out(name: str) -> bool:
        if always.match_file(name):
            return not let_in.match_file(name)
        return rules.leave_out(name)

    for folder, folders, files in os.walk(directory):
        here = Path(folder).relative_to(directory).as_posix()
        prefix = "" if here == "." else f"{here}/"
        rules.read(Path(folder), prefix)
        folders[:] = sorted(name for name in folders if not is_out(f"{prefix}{name}/"))
        for name in sorted([*files, *(name for name in folders if (Path(folder) / name).is_symlink())]):
            if not is_out(prefix + name):
                _check_kind(Path(folder) / name, prefix + name)
                yield prefix + name


def _check_kind(path: Path, name: str) -> None:
    if path.is_symlink() or not path.is_file():
        raise UsageError(f"{name} is no plain file", hint="put the file itself there, or name it in .qgjobignore")


def write(packing: Packing, target: IO[bytes]) -> None:
    """Write the bundle: files alone, in order, without times, owners, or more of their modes than who may execute.

    Raises:
        UsageError: A file cannot be read, or all together are too large.
    """
    left = MOST_BYTES
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in packing.names:
            path = packing.directory / name
            try:
                with path.open("rb") as file:
                    stat = os.fstat(file.fileno())
                    entry = tarfile.TarInfo(name)
                    entry.size = stat.st_size
                    entry.mode = 0o755 if stat.st_mode & 0o100 else 0o644
                    left -= entry.size
                    if left < 0:
                        raise UsageError(
                            f"the project has over {MOST_BYTES // 1_024**2} MiB to pack",
                            hint="name builds, videos and whatever tests do not need in .qgjobignore",
                        )
                    tar.addfile(entry, file)
            except OSError as error:
                raise UsageError(f"cannot read {path}: {error.strerror or error}", hint="check the project") from error


def expand(packing: Packing, tests: Iterable[str]) -> list[str]:
    """Return the spec files that names and patterns, as in tests/**/*.spec.ts, stand for.

    Raises:
        UsageError: One stands for nothing that is packed.
    """
    found: dict[str, None] = {}
    packed = frozenset(packing.names)
    for test in tests:
        if any(mark in test for mark in MARKS):
            spec = GitIgnoreSpec.from_lines([f"/{test.removeprefix('./')}"])
            matches = [name for name in packing.names if spec.match_file(name)]
        else:
            matches = [test.removeprefix("./")] if test.removeprefix("./") in packed else []
        if not matches:
            raise UsageError(
                f"no file of the bundle is {test}", hint="check the path; .gitignore and .qgjobignore may leave it out"
            )
        found.update(dict.fromkeys(matches))
    return list(found)
