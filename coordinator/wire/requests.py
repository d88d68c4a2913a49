"""Requests of users -> the core: what they ask for is validated here, once."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence

from coordinator.core import events as ev
from coordinator.core import model as m
from coordinator.core.errors import InvalidRequest
from coordinator.environment import MAX_ENTRIES, environment, secrets
from coordinator.wire.enums import JOB_STATES, KINDS, TARGETS
from coordinator.wire.fields import clean, digest, entries, optional_text, span_us, text
from coordinator.wire.limits import (
    DEFAULT_PAGE,
    MAX_ANSWER_BYTES_PER_JOB,
    MAX_JOBS_PER_CALL,
    MAX_MESSAGE_BYTES,
    MAX_NAME,
    MAX_PAGE,
    MAX_PATH_BYTES,
    MAX_RETRIES,
    MAX_SELECTOR,
    MAX_STATES,
    MAX_TIMEOUT_US,
    MAX_VALUE,
)
from coordinator.wire.views import job_spec_told
from qgjob.v1 import (
    build_service_pb2,
    device_pb2,
    job_pb2,
    job_service_pb2,
)


def _path(value: str) -> str:
    size = len(value.encode())
    if size > MAX_PATH_BYTES:
        raise InvalidRequest("test", f"test has {size} bytes, and {MAX_PATH_BYTES} is the limit")
    text("test", value, MAX_PATH_BYTES)
    parts = value.replace("\\", "/").split("/")
    if value.startswith(("/", "\\", "-")) or ".." in parts:
        raise InvalidRequest("test", f"test {value!r} must be a path inside the project, such as tests/login.spec.ts")
    return value


def job_spec(spec: job_pb2.JobSpec) -> m.JobSpec:
    """Validate what a user asks for and fill in the defaults.

    Raises:
        InvalidRequest: A field is missing, malformed or out of its range.
    """
    priority = spec.priority or m.DEFAULT_PRIORITY
    if not m.MIN_PRIORITY <= priority <= m.MAX_PRIORITY:
        raise InvalidRequest("priority", f"priority {priority} is out of range; use 1 (when idle) to 5 (now)")
    if spec.target not in TARGETS:
        raise InvalidRequest("target", f"target {spec.target} is unknown; use {', '.join(m.Target)}")
    if not 0 <= spec.retries <= MAX_RETRIES:
        raise InvalidRequest("retries", f"retries {spec.retries} is out of range; use 0 to {MAX_RETRIES}")
    timeout_us = span_us(spec.timeout) if spec.HasField("timeout") else m.DEFAULT_TIMEOUT_US
    if not m.SECOND_US <= timeout_us <= MAX_TIMEOUT_US:
        raise InvalidRequest("timeout", "timeout is out of range; use 1s to 24h")
    selector = entries("selector", spec.selector, MAX_SELECTOR)
    env = environment(spec.env)
    return m.JobSpec(
        org_id=text("org_id", spec.org_id, MAX_NAME),
        app_version_id=text("app_version_id", spec.app_version_id, MAX_NAME),
        test=_path(spec.test),
        priority=priority,
        target=TARGETS[spec.target],
        selector=tuple(selector.items()),
        env=env,
        secrets=secrets(spec.secrets, env),
        labels=entries("labels", spec.labels, MAX_ENTRIES),
        retries=spec.retries,
        timeout_us=timeout_us,
        run=text("run", spec.run, MAX_NAME, is_required=False),
        bundle_digest=sys.intern(digest("bundle_digest", spec.bundle_digest)) if spec.bundle_digest else "",
    )


def job_specs(request: job_service_pb2.SubmitJobsRequest) -> tuple[m.JobSpec, ...]:
    """Validate all jobs of a submit.

    Raises:
        InvalidRequest: There are none or too many, they belong to several organisations, or one is malformed.
    """
    if not request.jobs:
        raise InvalidRequest("jobs", "there is no job in the request")
    if len(request.jobs) > MAX_JOBS_PER_CALL:
        raise InvalidRequest("jobs", f"{len(request.jobs)} jobs in one call, and {MAX_JOBS_PER_CALL} is the limit")
    optional_text("request_id", request.request_id)
    answer = request.ByteSize() + MAX_ANSWER_BYTES_PER_JOB * len(request.jobs)
    if answer > MAX_MESSAGE_BYTES:
        raise InvalidRequest(
            "jobs", f"the answer would have about {answer} bytes, and {MAX_MESSAGE_BYTES} is the limit; use two calls"
        )
    specs = tuple(_nth_spec(request.jobs, index) for index in range(len(request.jobs)))
    if len({spec.org_id for spec in specs}) > 1:
        raise InvalidRequest("org_id", "the jobs of one call must belong to one organisation")
    return specs


def _nth_spec(specs: Sequence[job_pb2.JobSpec], index: int) -> m.JobSpec:
    """Validate one of many: the refusal says which."""
    try:
        return job_spec(specs[index])
    except InvalidRequest as refusal:
        if len(specs) == 1:
            raise
        field = f"jobs[{index}].{refusal.fields['field']}"
        raise InvalidRequest(field, f"job {index + 1} of {len(specs)}: {refusal}") from refusal


def payload_sha256(specs: Iterable[m.JobSpec], retry_of: m.JobId | None = None) -> str:
    """Return the SHA-256 of what was asked for, defaults filled in: equal requests hash alike."""
    hashed = hashlib.sha256()
    for spec in specs:
        message = job_spec_told(spec, spec.env, spec.secrets)
        hashed.update(message.SerializeToString(deterministic=True))
        hashed.update(b"\n")
    if retry_of is not None:
        hashed.update(b"retry of %d\n" % retry_of)
    return hashed.hexdigest()


def job_states(states: Sequence[int]) -> tuple[m.JobState, ...]:
    """Translate the states of a filter.

    Raises:
        InvalidRequest: There are too many, or a number is no state.
    """
    if len(states) > MAX_STATES:
        raise InvalidRequest("filter.states", f"{len(states)} states, and {MAX_STATES} is the limit")
    for state in states:
        if state and state not in JOB_STATES:
            raise InvalidRequest("filter.states", f"job state {state} is unknown")
    return tuple(JOB_STATES[state] for state in states if state)


def target_filter(target: int) -> m.Target | None:
    """Translate the target of a filter; None filters nothing.

    Raises:
        InvalidRequest: The number is no target.
    """
    if target and target not in TARGETS:
        raise InvalidRequest("filter.target", f"target {target} is unknown")
    return TARGETS[target] if target else None


def page_size(asked: int, default: int = DEFAULT_PAGE) -> int:
    """Return the size of a page.

    Raises:
        InvalidRequest: It is negative or too large.
    """
    if not 0 <= asked <= MAX_PAGE:
        raise InvalidRequest("page_size", f"page_size {asked} is out of range; use 1 to {MAX_PAGE}")
    return asked or default


def hold_requested(device_id: str, hold: m.DeviceHold, reason: str = "") -> ev.HoldRequested:
    """Translate a request to keep new work off a device.

    Raises:
        InvalidRequest: The reason is too long or holds control characters.
    """
    return ev.HoldRequested(
        device=m.DeviceId(device_id), hold=hold, reason=text("reason", reason, MAX_VALUE, is_required=False)
    )


def registration_requested(
    request: build_service_pb2.RegisterBuildRequest, digest: str, size: int
) -> ev.RegistrationRequested:
    """Translate a request to register a build that was uploaded.

    Raises:
        InvalidRequest: A name is missing, too long or unprintable, or the platform unknown.
    """
    return ev.RegistrationRequested(
        org_id=text("org_id", request.org_id, MAX_NAME),
        app_version_id=text("app_version_id", request.app_version_id, MAX_NAME),
        digest=digest,
        size=size,
        file_name=clean(request.file_name, MAX_NAME),
        is_replacing=request.replace,
        platform=_platform(request.platform),
        kind=_built_for(request.device_kind),
    )


def _built_for(kind: device_pb2.DeviceKind.ValueType) -> m.DeviceKind | None:
    if kind and KINDS.get(kind) not in (m.DeviceKind.EMULATOR, m.DeviceKind.DEVICE):
        raise InvalidRequest(
            "device_kind", f"device_kind {kind} is no kind that builds are for; use emulator or device"
        )
    return KINDS.get(kind)


def _platform(told: str) -> str:
    if told not in ("", *m.PLATFORMS):
        raise InvalidRequest("platform", f"platform {told!r} is unknown; use {' or '.join(m.PLATFORMS)}")
    return told
