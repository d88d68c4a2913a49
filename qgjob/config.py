"""Where settings come from: flag, then QGJOB_*, then .qgjob.toml of the project, then a profile of the user's file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qgjob.errors import UsageError

DEFAULT_COORDINATOR = "127.0.0.1:50051"
PROJECT_FILE = ".qgjob.toml"
SETTINGS = ("coordinator", "org_id", "output")


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, and where it came from."""

    value: str
    source: str


def user_file() -> Path:
    """Return the user's config file."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "qgjob" / "config.toml"


def settings(flags: Mapping[str, str | None], profile: str | None = None) -> dict[str, Setting]:
    """Return every setting with its source.

    Raises:
        UsageError: A file cannot be read, or the profile does not exist.
    """
    project = _read(_project_file())
    user_path = user_file()
    user = _profile(_read(user_path), profile or os.environ.get("QGJOB_PROFILE"), user_path)
    found = {"coordinator": Setting(DEFAULT_COORDINATOR, "default")}
    for name in SETTINGS:
        variable = f"QGJOB_{name.upper()}"
        candidates = (
            (flags.get(name), "flag"),
            (os.environ.get(variable), variable),
            (project.get(name), PROJECT_FILE),
            (user.get(name), str(user_path)),
        )
        for value, source in candidates:
            # An empty variable counts as none; an empty flag is what somebody typed, and is judged where it is used.
            if value or (value is not None and source == "flag"):
                found[name] = Setting(_text(name, value, source), source)
                break
    return found


def _text(name: str, value: object, source: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name} in {source} is no text", hint=f'write {name} = "..."')
    return value


def _project_file() -> Path | None:
    here = Path.cwd()
    return next((folder / PROJECT_FILE for folder in (here, *here.parents) if (folder / PROJECT_FILE).is_file()), None)


def _read(path: Path | None) -> dict[str, object]:
    if path is None or not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="mend or remove the file") from error


def _profile(values: dict[str, object], name: str | None, path: Path) -> dict[str, object]:
    profiles = values.get("profiles")
    if name is None:
        return values
    if not isinstance(profiles, dict) or not isinstance(profiles.get(name), dict):
        raise UsageError(f"there is no profile {name!r} in {path}", hint=f"add a table [profiles.{name}]")
    return {**values, **profiles[name]}
