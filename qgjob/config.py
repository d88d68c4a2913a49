"""Where settings come from: flag, then QGJOB_*, then .qgjob.toml of the project, then a profile of the user's file.

A project is often somebody else's. So what its file says of TLS and tokens counts for the coordinator that it names
itself, and no token but its own goes there, unless the user's file names that coordinator too.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qgjob.access import Access
from qgjob.errors import UsageError

DEFAULT_COORDINATOR = "127.0.0.1:50051"
PROJECT_FILE = ".qgjob.toml"
TRUSTED_PROJECT = f"{PROJECT_FILE}, trusted"
"""Source of a coordinator that the project's file and the user's name."""
ACCESS_SETTINGS = ("tls_ca", "tls_cert", "tls_key", "token", "token_file", "insecure")
SETTINGS = ("coordinator", "org_id", "output", "dashboard_url", *ACCESS_SETTINGS)
# What a report is given as a link must not end that link, nor begin anything else.
_WEB_ADDRESS = re.compile(r"https?://[^\s()<>\[\]\"'`|\\#]+")
_YES_OR_NO = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, and where it came from."""

    value: str
    source: str

    @property
    def is_on(self) -> bool:
        """The value as yes or no.

        Raises:
            UsageError: It is neither.
        """
        word = self.value.strip().lower()
        if word not in _YES_OR_NO:
            raise UsageError(f"{self.value!r} from {self.source} is neither true nor false", hint="write true or false")
        return _YES_OR_NO[word]


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

    def find(name: str) -> Setting | None:
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
                return Setting(_text(name, value, source), source)
        return None

    coordinator = find("coordinator") or Setting(DEFAULT_COORDINATOR, "default")
    if coordinator.source == PROJECT_FILE and _addresses(coordinator.value) <= _trusted(user, user_path):
        coordinator = Setting(coordinator.value, TRUSTED_PROJECT)
    if coordinator.source != PROJECT_FILE:
        project = {name: value for name, value in project.items() if name not in ACCESS_SETTINGS}
    found = {"coordinator": coordinator}
    for name in SETTINGS[1:]:
        if (setting := find(name)) is not None:
            found[name] = setting
    return found


def uncounted(found: Mapping[str, Setting]) -> list[str]:
    """Return which settings of the project's file do not count, because its coordinator is not the one to be called."""
    if found["coordinator"].source == PROJECT_FILE:
        return []
    project = _read(_project_file())
    return [name for name in ACCESS_SETTINGS if project.get(name)]


def access_of(found: Mapping[str, Setting]) -> Access:
    """Return what the settings say is shown to a coordinator.

    Raises:
        UsageError: One of them makes no sense, or a token would go to a coordinator that nobody but the project names.
    """
    values = {name: found[name].value for name in ACCESS_SETTINGS if name in found and name != "insecure"}
    if "token" in values and "token_file" in values:
        # A flag or a variable for one of the two overrules what a file says of the other.
        token, file = _distance(found["token"].source), _distance(found["token_file"].source)
        if token != file:
            del values["token" if file < token else "token_file"]
    for name in ("token", "token_file"):
        if name in values:
            _check_token(found[name], is_file=name == "token_file", coordinator=found.get("coordinator"))
    return Access(**values, is_insecure="insecure" in found and found["insecure"].is_on)


def dashboard_of(found: Mapping[str, Setting]) -> str:
    """Return the address of the coordinator's pages as people's browsers reach it; empty where nobody gave it.

    Raises:
        UsageError: It is none.
    """
    setting = found.get("dashboard_url")
    if setting is None:
        return ""
    if not _WEB_ADDRESS.fullmatch(setting.value):
        raise UsageError(
            f"dashboard_url {setting.value!r} (from {setting.source}) is no web address",
            hint="write it as in https://lab.example:8002",
        )
    return setting.value.rstrip("/")


def _check_token(token: Setting, *, is_file: bool, coordinator: Setting | None) -> None:
    if coordinator is None or coordinator.source != PROJECT_FILE:
        return
    if token.source != PROJECT_FILE:
        listed = ", ".join(f'"{address}"' for address in sorted(_addresses(coordinator.value)))
        raise UsageError(
            f"the token from {token.source} is not sent to {coordinator.value}, which {PROJECT_FILE} names",
            hint=f"if it is meant for it, give --coordinator, or add trusted = [{listed}] to {user_file()}",
        )
    project = _project_file()
    if is_file and project is not None and not Path(token.value).resolve().is_relative_to(project.parent.resolve()):
        # It could be any file of ours, whose content would be sent.
        raise UsageError(
            f"token_file in {PROJECT_FILE} leads out of the project",
            hint="give --coordinator and --token-file, or set them in your own file",
        )


def _addresses(coordinator: str) -> set[str]:
    return {address.strip() for address in coordinator.split(",")}


def _trusted(user: Mapping[str, object], path: Path) -> set[str]:
    """Return the addresses to which the user's file lets tokens go."""
    listed = user.get("trusted", [])
    if not isinstance(listed, list) or not all(isinstance(address, str) for address in listed):
        raise UsageError(f"trusted in {path} is no list of addresses", hint='write trusted = ["HOST:PORT"]')
    own = user.get("coordinator")
    return {*listed, *(_addresses(own) if isinstance(own, str) else ())}


def _distance(source: str) -> int:
    if source == "flag":
        return 0
    return 1 if source.startswith("QGJOB_") else 2 if source == PROJECT_FILE else 3


def _text(name: str, value: object, source: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
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
