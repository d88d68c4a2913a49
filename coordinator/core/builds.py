"""The builds: which binary an app version is, how long installs take, and which binaries devices refuse."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.errors import BuildRegistered
from coordinator.core.model import LAB_BUDGET, AppKey, Build, DeviceId, changed

REJECTING_DEVICES = 2
"""So many devices that refuse a build for its own reason make it a broken one."""
REMEMBERED_REFUSALS = 1_000
"""Builds whose refusals are remembered; those of the longest ago are forgotten first."""


class Builds:
    """All builds by app version."""

    def __init__(self) -> None:
        self.versions: dict[AppKey, Build] = {}
        self._mean_install_us: dict[AppKey, int] = {}
        """Of registered builds by their digest, of all others by their app version."""
        self._refusals: dict[AppKey, list[DeviceId]] = {}
        """Builds that devices have refused since one took them, and the devices, one for each time."""
        self._taken: set[AppKey] = set()
        """Registered builds that a device of this life has taken: they are not broken, whoever refuses them."""

    def get(self, version: AppKey) -> Build | None:
        """Return what is known of an app version."""
        return self.versions.get(version)

    def restore(self, builds: Iterable[Build]) -> None:
        """Take up what an earlier life knew."""
        for build in builds:
            self._put(build)

    def _put(self, build: Build) -> None:
        self.versions[build.app] = build
        if build.installs:
            self._mean_install_us[_named(build.app, build.registered)] = build.mean_install_us

    def app_of(self, org_id: str, app_version_id: str) -> AppKey:
        """Return the build that jobs of an app version are tested against from now on."""
        version = AppKey(org_id=org_id, app_version_id=app_version_id)
        build = self.versions.get(version)
        return version if build is None else _named(version, build.registered)

    def register(self, new: Build, *, is_replacing: bool) -> Build | None:
        """Let an app version be a binary from now on; return what has changed, None where it was that binary before.

        Raises:
            BuildRegistered: It is another one, which is not to be replaced.
        """
        known = self.versions.get(new.app)
        if known is not None and known.registered == new.digest:
            return self._tell_platform(known, new.platform)
        if known is not None and known.registered and not is_replacing:
            raise BuildRegistered(
                f"app version {new.app.app_version_id} of {new.app.org_id} is another binary already"
                f" (SHA-256 {known.digest[:16]})",
                digest=known.digest,
            )
        if known is not None:
            new = changed(
                new,
                create_us=known.create_us,
                install_us=known.install_us,
                installs=known.installs,
                mean_install_us=known.mean_install_us,
            )
        self._put(new)
        return new

    def _tell_platform(self, known: Build, platform: str) -> Build | None:
        """Take in what is told of a binary that is registered: an older client did not look into it."""
        if not platform or known.platform == platform:
            return None
        told = changed(known, platform=platform)
        self._put(told)
        return told

    def platform_of(self, org_id: str, app_version_id: str) -> str:
        """Return for which platform an app version is, empty where that is not known."""
        build = self.versions.get(AppKey(org_id=org_id, app_version_id=app_version_id))
        return "" if build is None or not build.registered else build.platform

    # Installs

    def install_us(self, app: AppKey) -> int:
        """Return how long an install takes, 0 where none was made."""
        return self._mean_install_us.get(app, 0)

    def note_install(self, app: AppKey, digest: str, install_us: int, wall_us: int) -> Build:
        """Count an install, and return what is known now."""
        before_us = self._mean_install_us.get(app)
        mean_us = install_us if before_us is None else (3 * before_us + install_us) // 4
        known = self.versions.get(app.version)
        if known is None:
            known = Build(app=app.version, digest=digest, create_us=wall_us)
        build = changed(
            known,
            # Of a binary that was replaced meanwhile, only the count is told.
            digest=known.registered or digest,
            install_us=wall_us,
            installs=known.installs + 1,
            mean_install_us=mean_us,
        )
        self.versions[build.app] = build
        self._mean_install_us[app] = mean_us
        return build

    # Refusals

    def note_refusal(self, app: AppKey, device: DeviceId) -> bool:
        """Note that a device refused a build for its own reason; return whether that makes the build a broken one.

        Two devices do, or as many tries as a job has: where there is one device alone, nothing else can tell.
        """
        if app in self._taken:
            return False
        if app not in self._refusals and len(self._refusals) >= REMEMBERED_REFUSALS:
            del self._refusals[next(iter(self._refusals))]
        refusals = self._refusals.setdefault(app, [])
        if len(refusals) < LAB_BUDGET or device not in refusals:
            refusals.append(device)
        return len(set(refusals)) >= REJECTING_DEVICES or len(refusals) >= LAB_BUDGET

    def take_back_refusals(self, app: AppKey) -> None:
        """Note that a device took a build: it is not broken."""
        self._refusals.pop(app, None)
        if app.digest:
            self._taken.add(app)

    def refusing(self, app: AppKey) -> list[DeviceId]:
        """Return the devices that refused a build, each once."""
        return sorted(set(self._refusals.get(app, ())))


def _named(version: AppKey, digest: str) -> AppKey:
    return AppKey(org_id=version.org_id, app_version_id=version.app_version_id, digest=digest)
