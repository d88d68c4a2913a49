"""Which build a device of iOS holds: remembered with the place where the device put it.

iOS tells nobody what is in an installed app. But it puts an app in another place at every install: as long as the place
is the one of our own last install, the build is ours as well.
"""

from __future__ import annotations

import json
from pathlib import Path

from agent.disk import UNREADABLE, replace_file


class Installs:
    """Of one device."""

    def __init__(self, directory: Path, udid: str) -> None:
        """Use a directory, which is made when it is needed."""
        self._path = directory / f"{udid}.json"

    def held(self, bundle_id: str, place: str | None) -> str | None:
        """Return the digest of the build that lies at a place, None where somebody else has put it there."""
        known = self._read().get(bundle_id)
        return known["digest"] if known is not None and place is not None and known["place"] == place else None

    def apps(self) -> frozenset[str]:
        """Return the bundle ids of what was installed and is not forgotten, also by an earlier life of the agent."""
        return frozenset(self._read())

    def note(self, bundle_id: str, place: str, digest: str) -> None:
        """Remember an install, durably.

        Raises:
            OSError: It cannot be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._path, {**self._read(), bundle_id: {"place": place, "digest": digest}})

    def forget(self, bundle_id: str) -> None:
        """Forget an app before anything is done to it: a half of an install must not pass for the last one.

        Raises:
            OSError: It cannot be written.
        """
        known = self._read()
        if known.pop(bundle_id, None) is not None:
            replace_file(self._path, known)

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            told = json.loads(self._path.read_bytes())
            return {str(app): {"place": str(one["place"]), "digest": str(one["digest"])} for app, one in told.items()}
        except (FileNotFoundError, AttributeError, *UNREADABLE):
            return {}  # at worst a build is installed again
