"""What the domain refuses, and why. The sentence is for people, the fields are for programs."""

from __future__ import annotations

from typing import ClassVar


class QgjobError(Exception):
    """A refusal. Nothing has changed when it is raised."""

    reason: ClassVar[str]

    def __init__(self, message: str, **fields: object) -> None:
        """Take the sentence, and the fields that it names."""
        super().__init__(message)
        self.fields = fields


class InvalidRequest(QgjobError):
    """A field is missing, malformed or out of its range."""

    reason = "INVALID_REQUEST"

    def __init__(self, field: str, message: str) -> None:
        """Name the field that is wrong."""
        super().__init__(message, field=field)


class NotFound(QgjobError):
    """No record has this id."""

    reason = "NOT_FOUND"

    def __init__(self, kind: str, identity: object) -> None:
        """Name what was looked for."""
        super().__init__(f"there is no {kind} {identity}", kind=kind, id=identity)


class RequestIdReused(QgjobError):
    """An idempotency key came back with another payload."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, key: str, jobs: tuple[int, ...] = ()) -> None:
        """Name the key, and the jobs that were accepted under it."""
        super().__init__(f"idempotency key {key!r} was used before with other jobs; use a new key", request_id=key)
        self.jobs = jobs


class InvalidTransition(QgjobError):
    """The record's state does not allow the change."""

    reason = "INVALID_TRANSITION"


class LeaseFenced(QgjobError):
    """The lease is spent, or never was."""

    reason = "LEASE_FENCED"


class QueueFull(QgjobError):
    """A limit on queued work was reached."""

    reason = "QUEUE_FULL"


class TooManyFollowers(QgjobError):
    """A log is followed by as many as may follow one."""

    reason = "TOO_MANY_FOLLOWERS"


class StorageFull(QgjobError):
    """There is too little space for what is new."""

    reason = "STORAGE_FULL"


class BuildRegistered(QgjobError):
    """Another binary is registered under an app version."""

    reason = "BUILD_REGISTERED"


class DigestMismatch(QgjobError):
    """What was uploaded is not what was announced."""

    reason = "DIGEST_MISMATCH"


class UploadBroken(QgjobError):
    """An upload broke off, or went on at the wrong place."""

    reason = "UPLOAD_BROKEN"


class BlobTooLarge(QgjobError):
    """A blob is larger than the coordinator takes."""

    reason = "BLOB_TOO_LARGE"


class TooManyArtifacts(QgjobError):
    """An attempt has left behind as much as may be kept of one."""

    reason = "TOO_MANY_ARTIFACTS"


class ArtifactRecorded(QgjobError):
    """An artifact of this name is recorded with other bytes."""

    reason = "ARTIFACT_RECORDED"


class Conflict(QgjobError):
    """Another agent owns this name or device."""

    reason = "CONFLICT"


class Unauthenticated(QgjobError):
    """The caller showed no token, or one that nobody has."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(QgjobError):
    """The caller is known and may not do this."""

    reason = "PERMISSION_DENIED"


class VersionUnsupported(QgjobError):
    """The agent or client is of a release, or speaks a protocol, that does not fit this coordinator's."""

    reason = "VERSION_UNSUPPORTED"


class NoMatchingDevice(QgjobError):
    """A strict request that no known device could serve."""

    reason = "NO_MATCHING_DEVICE"


class ShuttingDown(QgjobError):
    """The coordinator is stopping."""

    reason = "SHUTTING_DOWN"


class NotLeader(QgjobError):
    """Another coordinator leads, or is about to."""

    reason = "NOT_LEADER"

    def __init__(self, message: str, leader: str = "") -> None:
        """Take the sentence, and the address of the one that leads, where it is known."""
        super().__init__(message, **({"leader": leader} if leader else {}))


class DatabaseUnavailable(QgjobError):
    """The database did not answer a question."""

    reason = "DATABASE_UNAVAILABLE"

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__("the coordinator's database does not answer; repeat the call in a moment")


class StorageUnavailable(QgjobError):
    """The storage of logs and blobs did not answer a question."""

    reason = "STORAGE_UNAVAILABLE"

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__("the storage of logs and builds does not answer; repeat the call in a moment")


class IllegalTransition(AssertionError):
    """Our own bug: a state change that the tables do not have."""
