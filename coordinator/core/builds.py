"""The builds: which binary an app version is, and how long installs take."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.errors import BuildRegistered
from coordinator.core.model import AppKey, Build, changed


class Builds:
    """All builds by app version."""

    def __init__(self) -> None:
        self.versions: dict[AppKey, Build] = {}
        self._mean_install_us: dict[AppKey, int] = {}
        """Of registered builds by their digest, of all others by their app version."""

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
            return self._tell_platform(known, new)
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

    def _tell_platform(self, known: Build, new: Build) -> Build | None:
        """Take in what is told of a binary that is registered: an older client did not look into it."""
        if not new.platform or (known.platform, known.kind) == (new.platform, new.kind):
            return None
        told = changed(known, platform=new.platform, kind=new.kind)
        self._put(told)
        return told

    def registered(self, org_id: str, app_version_id: str) -> Build | None:
        """Return the build that is registered as an app version, None where none is."""
        build = self.versions.get(AppKey(org_id=org_id, app_version_id=app_version_id))
        return build if build is not None and build.registered else None

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


def _named(version: AppKey, digest: str) -> AppKey:
    return AppKey(org_id=version.org_id, app_version_id=version.app_version_id, digest=digest)
