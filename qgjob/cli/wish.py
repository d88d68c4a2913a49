"""What somebody wishes to be run: as flags and a manifest say it, before it is checked and becomes job specs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qgjob.cli import fields as checked
from qgjob.errors import UsageError

if TYPE_CHECKING:
    from qgjob.v1.job_pb2 import JobSpec

DEFAULT_PRIORITY = 3
DEFAULT_TARGET = "any"
DEFAULT_TIMEOUT = "10m"
SPECS = "specs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Fields of a job spec; None for what is not said."""

    org_id: str | None = None
    app_version_id: str | None = None
    test: str | None = None
    priority: int | None = None
    target: str | None = None
    selector: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """They stand in no manifest: that is a file of the project."""
    labels: Mapping[str, str] = field(default_factory=dict)
    retries: int | None = None
    timeout: str | None = None
    run: str | None = None

    def over(self, other: Wish) -> Wish:
        """Return what both say; where they differ, this one counts. Maps are joined."""
        said: dict[str, Any] = {}
        for name in NAMES:
            mine, theirs = getattr(self, name), getattr(other, name)
            if name in MAPS:
                said[name] = {**theirs, **mine}
            else:
                said[name] = theirs if mine is None else mine
        return Wish(**said)

    def spec(self) -> JobSpec:
        """Return the job spec.

        Raises:
            UsageError: It cannot be right.
        """
        from qgjob.v1.job_pb2 import JobSpec

        if self.org_id is None:
            raise UsageError("no organisation is given", hint="add --org-id, or set QGJOB_ORG_ID")
        if self.app_version_id is None:
            raise UsageError("no app version is given", hint="add --app-version-id")
        spec = JobSpec(
            org_id=checked.name("org-id", self.org_id),
            app_version_id=checked.name("app-version-id", self.app_version_id),
            test=checked.test_path(self.test or ""),
            priority=checked.priority(DEFAULT_PRIORITY if self.priority is None else self.priority),
            target=checked.target_number(DEFAULT_TARGET if self.target is None else self.target),  # type: ignore[arg-type]
            selector=checked.labels(self.selector, "selector"),
            env=checked.environment(self.env),
            secrets=checked.secrets(self.secrets, self.env),
            labels=checked.labels(self.labels),
            retries=checked.retries(self.retries or 0),
            run=checked.name("run", self.run or "", is_required=False),
        )
        limit_s = checked.time_limit_s(DEFAULT_TIMEOUT if self.timeout is None else self.timeout)
        spec.timeout.FromMilliseconds(round(limit_s * 1_000))
        return spec


NAMES = tuple(one.name for one in fields(Wish))
IN_MANIFESTS = tuple(name for name in NAMES if name != "secrets")
MAPS = ("selector", "env", "secrets", "labels")
NUMBERS = ("priority", "retries")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says."""

    path: Path
    common: Wish
    """What counts for every spec that does not say otherwise."""
    wishes: list[Wish]
    """One for each spec."""


def read_manifest(path: Path) -> Manifest:
    """Return what a manifest says.

    Raises:
        UsageError: It cannot be read, or says something that nobody understands.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="check --from") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}", hint="docs/cli.md has an example") from error
    specs = values.pop(SPECS, None)
    if not isinstance(specs, list) or not all(isinstance(one, dict) for one in specs):
        raise _without_specs(path)
    common = _wish(values, str(path), known=[name for name in IN_MANIFESTS if name != "test"])
    wishes = [
        _wish(one, f"{path}, spec {number}", known=[name for name in IN_MANIFESTS if name != "org_id"])
        for number, one in enumerate(specs, 1)
    ]
    return Manifest(path, common, wishes)


def _wish(values: Mapping[str, Any], where: str, *, known: Iterable[str]) -> Wish:
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"{where}: {name} is no field", hint=f"fields are {', '.join(known)}")
        if name in MAPS:
            is_right = isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
        elif name in NUMBERS:
            is_right = isinstance(value, int) and not isinstance(value, bool)
        else:
            is_right = isinstance(value, str)
        if not is_right:
            kind = "a table of texts" if name in MAPS else "a whole number" if name in NUMBERS else "a text"
            raise UsageError(f"{where}: {name} is not {kind}", hint="docs/cli.md has an example")
    return Wish(**values)


def specs_of(flags: Wish, tests: Iterable[str], manifest: Manifest | None, settings: Wish) -> list[JobSpec]:
    """Return the job specs: those of a manifest in its order, then one for each test.

    What a spec of the manifest says counts before the flags, these before what the manifest says for all, and last
    come the settings.

    Raises:
        UsageError: One of them cannot be right.
    """
    common = flags.over(settings if manifest is None else manifest.common.over(settings))
    specs: list[JobSpec] = []
    if manifest is not None:
        for number, wish in enumerate(manifest.wishes, 1):
            try:
                specs.append(wish.over(common).spec())
            except UsageError as error:
                raise UsageError(f"{manifest.path}, spec {number}: {error}", hint=error.hint) from error
    specs += [replace(common, test=test).spec() for test in tests]
    if manifest is not None and not specs:
        raise _without_specs(manifest.path)
    return specs


def _without_specs(path: Path) -> UsageError:
    return UsageError(f"{path} has no specs", hint=f'add a table [[{SPECS}]] with test = "..." for each')
