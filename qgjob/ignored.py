"""What the ignore files of a project leave out of its bundle, read as git reads its own."""

from __future__ import annotations

from pathlib import Path

from pathspec import GitIgnoreSpec

from qgjob.errors import UsageError

IGNORE_FILES = (".gitignore", ".qgjobignore")
MOST_IGNORE_BYTES = 1_024 * 1_024


class IgnoreRules:
    """The rules for one folder: its own, and those of the folders above it in the same git repository.

    The deeper a file of rules lies, the more it says, and its last match counts. What is personal, as
    `.git/info/exclude`, is not read: the same project shall give the same bundle whoever packs it.
    """

    def __init__(self, directory: Path) -> None:
        """Read the rules of the folders above.

        Raises:
            UsageError: A file of rules cannot be read.
        """
        directory = directory.resolve()
        root = next((folder for folder in (directory, *directory.parents) if (folder / ".git").exists()), directory)
        self._base = _as_prefix(directory.relative_to(root))
        self._specs: dict[str, GitIgnoreSpec] = {}
        """By the folder of the rules, from the repository's root on."""
        for folder in reversed(directory.parents):
            if folder.is_relative_to(root):
                self._read(folder, _as_prefix(folder.relative_to(root)))
        if self._base and self.leave_out(""):
            self._set_aside_what_names_the_folder()

    def read(self, folder: Path, name: str) -> None:
        """Take in the rules of a folder inside the project.

        Args:
            folder: Where it lies.
            name: Its path inside the project, with a slash at the end; empty for the project itself.

        Raises:
            UsageError: A file of rules cannot be read.
        """
        self._read(folder, self._base + name)

    def leave_out(self, name: str) -> bool:
        """Return whether a path inside the project is left out; that of a folder ends with a slash."""
        path = self._base + name
        verdict = False
        for folder, spec in self._specs.items():
            if path.startswith(folder):
                found = spec.check_file(path.removeprefix(folder)).include
                verdict = verdict if found is None else found
        return verdict

    def _read(self, folder: Path, prefix: str) -> None:
        lines = [line for name in IGNORE_FILES for line in _lines(folder / name)]
        if lines:
            self._specs[prefix] = GitIgnoreSpec.from_lines(lines)

    def _set_aside_what_names_the_folder(self) -> None:
        """Drop the rules above that leave out the whole project: whoever names it wants it, as with `git add -f`."""
        for folder, spec in self._specs.items():
            inside = self._base.removeprefix(folder)
            kept = [one for one in spec.patterns if not (one.include and one.match_file(inside))]
            self._specs[folder] = GitIgnoreSpec(kept)


def _as_prefix(path: Path) -> str:
    return "" if path == Path() else f"{path.as_posix()}/"


def _lines(path: Path) -> list[str]:
    try:
        if not path.is_file():
            return []
        with path.open("rb") as file:
            text = file.read(MOST_IGNORE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", hint="check who may read it") from error
    if len(text) > MOST_IGNORE_BYTES:
        raise UsageError(f"{path} has over {MOST_IGNORE_BYTES // 1_024} KiB", hint="use patterns instead of names")
    return text.decode("utf-8", errors="replace").splitlines()
