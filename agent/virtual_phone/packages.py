"""The phone's package manager: what is installed, and the rules by which an install fails."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agent.virtual_phone.badging import ApkUnreadable, Badging, read_badging
from agent.virtual_phone.errors import ToolMissing
from agent.virtual_phone.faults import FaultKind, Faults
from agent.virtual_phone.files import FileStore, StorageFull
from agent.virtual_phone.phonelog import PackageEvent, PackageLog

MAX_APK_BYTES = 512 * 1024 * 1024
FIRST_APP_USER_ID = 10100
STORAGE_CODE = "INSTALL_FAILED_INSUFFICIENT_STORAGE"

ReadBadging = Callable[[bytes], Awaitable[Badging]]


class InstallRefused(Exception):
    """An install that failed; carries Android's code and a sentence."""

    def __init__(self, code: str, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}" if self.reason else self.code


class PackageUnknown(Exception):
    """No such package is installed."""

    def __init__(self, package: str) -> None:
        super().__init__(package)
        self.package = package

    def __str__(self) -> str:
        return f"Unknown package: {self.package}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallOptions:
    """The flags of ``pm install`` that change what is allowed."""

    may_replace: bool = True
    may_downgrade: bool = False
    may_be_test_only: bool = False
    grants_permissions: bool = False


@dataclass(slots=True, kw_only=True)
class InstalledPackage:
    """An app on the phone. `data` is what it keeps between launches, which ``pm clear`` wipes."""

    badging: Badging
    path: str
    sha256: str
    size_bytes: int
    user_id: int
    first_installed_at: float
    updated_at: float
    granted_permissions: set[str] = field(default_factory=set)
    data: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The application id."""
        return self.badging.package


class PackageManager:
    """The installed packages. Installs run one at a time, as on a phone."""

    def __init__(
        self,
        *,
        files: FileStore,
        faults: Faults,
        log: PackageLog,
        sdk: int,
        abis: tuple[str, ...],
        clock: Callable[[], float],
        read: ReadBadging = read_badging,
    ) -> None:
        """Start with nothing installed.

        Args:
            files: where the APKs are kept.
            faults: what may go wrong.
            log: the phone's package log.
            sdk: the phone's API level.
            abis: the instruction sets that its processor runs, best first.
            clock: the wall clock, in epoch seconds.
            read: how an APK is read; the default is ``aapt``.
        """
        self._files = files
        self._faults = faults
        self._log = log
        self._sdk = sdk
        self._abis = abis
        self._clock = clock
        self._read = read
        self._installed: dict[str, InstalledPackage] = {}
        self._turn = asyncio.Lock()
        self._next_user_id = FIRST_APP_USER_ID

    def all(self) -> list[InstalledPackage]:
        """Return what is installed, by name."""
        return [self._installed[name] for name in sorted(self._installed)]

    def find(self, package: str) -> InstalledPackage | None:
        """Return an installed package, or None."""
        return self._installed.get(package)

    def get(self, package: str) -> InstalledPackage:
        """Return an installed package; raises `PackageUnknown`."""
        installed = self._installed.get(package)
        if installed is None:
            raise PackageUnknown(package)
        return installed

    async def install(self, content: bytes, options: InstallOptions) -> InstalledPackage:
        """Install or update an app from the bytes of its APK; raises `InstallRefused`, then nothing has changed."""
        async with self._turn:
            package = ""
            try:
                badging = await self._parse(content)
                package = badging.package
                await self._suffer_faults(package)
                self._check(badging, options)
                installed = self._replace(badging, content)
            except InstallRefused as error:
                self._log.record(PackageEvent.INSTALL_FAILED, package, reason=str(error))
                raise
        if options.grants_permissions:
            installed.granted_permissions.update(badging.permissions)
        self._record(PackageEvent.INSTALL, installed)
        return installed

    def uninstall(self, package: str) -> None:
        """Remove an app with its data; raises `PackageUnknown`."""
        installed = self.get(package)
        del self._installed[package]
        self._files.remove(installed.path)
        self._record(PackageEvent.UNINSTALL, installed)

    def clear(self, package: str) -> None:
        """Wipe an app's data and take its permissions back; raises `PackageUnknown`."""
        installed = self.get(package)
        installed.data.clear()
        installed.granted_permissions.clear()
        self._record(PackageEvent.CLEAR, installed)

    def launched(self, installed: InstalledPackage) -> None:
        """Write down that an app was started."""
        self._record(PackageEvent.LAUNCH, installed)

    async def _parse(self, content: bytes) -> Badging:
        if len(content) > MAX_APK_BYTES:
            raise InstallRefused("INSTALL_FAILED_INVALID_APK", f"larger than {MAX_APK_BYTES} bytes")
        try:
            return await self._read(content)
        except ApkUnreadable as error:
            raise InstallRefused(error.code, error.reason) from error
        except ToolMissing as error:
            raise InstallRefused("INSTALL_FAILED_INTERNAL_ERROR", f"this virtual phone cannot work: {error}") from error

    async def _suffer_faults(self, package: str) -> None:
        if slow := self._faults.for_install(FaultKind.SLOW_INSTALL, package):
            await asyncio.sleep(float(slow.value))
        if failing := self._faults.for_install(FaultKind.INSTALL_FAILS, package):
            self._faults.spend(FaultKind.INSTALL_FAILS)
            raise InstallRefused(failing.value, "injected fault")

    def _check(self, badging: Badging, options: InstallOptions) -> None:
        if badging.signer is None:
            raise InstallRefused("INSTALL_PARSE_FAILED_NO_CERTIFICATES", "Failed to collect certificates")
        if badging.minimum_sdk > self._sdk:
            reason = f"Requires newer sdk version #{badging.minimum_sdk} (current version is #{self._sdk})"
            raise InstallRefused("INSTALL_FAILED_OLDER_SDK", reason)
        if badging.abis and not set(badging.abis) & set(self._abis):
            raise InstallRefused(
                "INSTALL_FAILED_NO_MATCHING_ABIS", f"Failed to extract native libraries, {badging.abis}"
            )
        if badging.is_test_only and not options.may_be_test_only:
            raise InstallRefused(
                "INSTALL_FAILED_TEST_ONLY", "Failed to install test-only apk. Did you forget to add -t?"
            )
        present = self._installed.get(badging.package)
        if present is None:
            return
        if not options.may_replace:
            reason = f"Attempt to re-install {badging.package} without first uninstalling."
            raise InstallRefused("INSTALL_FAILED_ALREADY_EXISTS", reason)
        if badging.signer != present.badging.signer:
            reason = f"Existing package {badging.package} signatures do not match newer version; ignoring!"
            raise InstallRefused("INSTALL_FAILED_UPDATE_INCOMPATIBLE", reason)
        if badging.version_code < present.badging.version_code and not options.may_downgrade:
            reason = (
                f"Downgrade detected: Update version code {badging.version_code} "
                f"is older than current {present.badging.version_code}"
            )
            raise InstallRefused("INSTALL_FAILED_VERSION_DOWNGRADE", reason)

    def _replace(self, badging: Badging, content: bytes) -> InstalledPackage:
        present = self._installed.get(badging.package)
        now = self._clock()
        path = f"/data/app/{badging.package}/base.apk"
        try:
            self._files.write(path, content, changed_at=int(now))
        except StorageFull as error:
            raise InstallRefused(STORAGE_CODE, "Failed to override installation location") from error
        installed = InstalledPackage(
            badging=badging,
            path=path,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            user_id=present.user_id if present else self._next_user_id,
            first_installed_at=present.first_installed_at if present else now,
            updated_at=now,
            granted_permissions=set(present.granted_permissions) if present else set(),
            data=dict(present.data) if present else {},
        )
        if present is None:
            self._next_user_id += 1
        self._installed[badging.package] = installed
        return installed

    def _record(self, event: PackageEvent, installed: InstalledPackage) -> None:
        self._log.record(
            event,
            installed.name,
            version_code=installed.badging.version_code,
            version_name=installed.badging.version_name,
            sha256=installed.sha256,
        )
