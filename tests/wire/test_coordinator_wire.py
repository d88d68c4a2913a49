"""The translator: what comes back is what went in, and nothing that the database refuses comes through."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from coordinator import wire
from coordinator.core import errors
from coordinator.core import model as m
from coordinator.core.errors import InvalidRequest, QgjobError
from coordinator.core.events import (
    AgentConnected,
    AttemptFinished,
    BuildInstalled,
    HeartbeatReceived,
    LeaseClosed,
    TestReported,
)
from coordinator.core.step import (
    CloseSession,
    LeasedJob,
    SendClose,
    SendHeartbeatAcknowledged,
    SendLease,
    SendResultsAcknowledged,
    SendWelcome,
)
from qgjob.v1 import (
    agent_pb2,
    agent_service_pb2,
    device_pb2,
    error_pb2,
    job_pb2,
    job_service_pb2,
    lease_pb2,
    queue_pb2,
)
from tests.store.records import a_build, a_device, a_job, a_lease, an_agent, an_attempt

SESSION = m.SessionId(1)
CLUSTER = "cluster"

line = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=100).filter(str.strip)
name = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True).filter(lambda one: not _is_refused(one))
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
any_span = st.builds(Duration, seconds=st.integers(-(2**63), 2**63 - 1), nanos=st.integers(-(2**31), 2**31 - 1))
any_id = st.integers(-(2**63), 2**63 - 1)
any_key = st.builds(lease_pb2.LeaseKey, lease_id=any_id, fence=st.builds(lease_pb2.Fence, epoch=any_id, number=any_id))


def _is_refused(variable: str) -> bool:
    tools = ("NODE_", "LD_", "DYLD_", "ANDROID_", "ADB_", "APPIUM_", "PLAYWRIGHT_", "PW_TEST_", "PWTEST_", "QGJOB_")
    return variable.startswith(tools) or variable == "PATH"


specs = st.builds(
    m.JobSpec,
    org_id=line,
    app_version_id=line,
    test=st.from_regex(r"[a-z0-9]{1,10}(/[a-z0-9.]{1,10}[a-z])?", fullmatch=True),
    priority=st.integers(1, 5),
    target=st.sampled_from(m.Target),
    selector=st.dictionaries(line, line, max_size=3).map(lambda entries: tuple(sorted(entries.items()))),
    env=st.dictionaries(name, st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)),
    # No name of the environment begins so.
    secrets=st.dictionaries(
        st.from_regex(r"SECRET_[A-Z]{1,4}", fullmatch=True), st.text("abc", min_size=4, max_size=9)
    ),
    labels=st.dictionaries(line, line, max_size=3),
    retries=st.integers(0, 10),
    timeout_us=st.integers(m.SECOND_US, wire.MAX_TIMEOUT_US),
    run=st.just("") | line,
)


def message_of(spec: m.JobSpec) -> job_pb2.JobSpec:
    message = wire.job_spec_out(spec)
    message.env.update(spec.env)
    message.secrets.update(spec.secrets)
    return message


# Round trips


@given(specs)
def test_spec_comes_back_as_it_went(spec: m.JobSpec) -> None:
    assert wire.job_spec(job_pb2.JobSpec.FromString(message_of(spec).SerializeToString())) == spec


@given(specs)
def test_values_of_the_environment_are_never_told(spec: m.JobSpec) -> None:
    assert set(wire.job_spec_out(spec).env.values()) <= {""}
    assert set(wire.job_spec_out(spec).env) == set(spec.env)
    assert dict(wire.job_spec_out(spec).secrets) == dict.fromkeys(spec.secrets, "")
    assert not spec.secrets or "secrets" not in repr(spec)


@given(specs, specs)
def test_equal_requests_and_only_those_hash_alike(one: m.JobSpec, other: m.JobSpec) -> None:
    again = wire.job_spec(message_of(one))
    assert wire.payload_sha256([one]) == wire.payload_sha256([again])
    assert (wire.payload_sha256([one]) == wire.payload_sha256([other])) == (one == other)
    assert wire.payload_sha256([one]) != wire.payload_sha256([one], m.JobId(1))
    assert wire.payload_sha256([one], m.JobId(2)) != wire.payload_sha256([one], m.JobId(1))


@given(st.integers(0, wire.MAX_SPAN_US))
def test_span_comes_back_as_it_went(span_us: int) -> None:
    assert wire.span_us(wire.duration(span_us)) == span_us


@given(any_span)
def test_any_span_fits_into_the_database(span: Duration) -> None:
    assert 0 <= wire.span_us(span) <= wire.MAX_SPAN_US < 2**63


@given(st.integers(0, 2**52))
def test_instant_is_told_to_the_microsecond(wall_us: int) -> None:
    assert wire.timestamp(wall_us).ToMicroseconds() == wall_us


@pytest.mark.parametrize(
    ("words", "enum"),
    [
        (m.JobState, job_pb2.JobState),
        (m.Target, job_pb2.Target),
        (m.AttemptOutcome, job_pb2.AttemptOutcome),
        (m.Lane, job_pb2.Lane),
        (m.Blame, job_pb2.Blame),
        (m.TestState, job_pb2.TestState),
        (m.DeviceKind, device_pb2.DeviceKind),
        (m.DeviceState, device_pb2.DeviceState),
        (m.AgentState, agent_pb2.AgentState),
        (m.RevokeReason, lease_pb2.RevokeReason),
    ],
)
def test_wire_and_core_have_the_same_words(words: Any, enum: Any) -> None:  # noqa: ANN401 - enums of both
    told = {value.name for value in enum.DESCRIPTOR.values}
    prefix = next(one for one in told if one.endswith("UNSPECIFIED")).removesuffix("UNSPECIFIED")
    assert told == {f"{prefix}UNSPECIFIED", *(f"{prefix}{word.name}" for word in words)}


def test_every_refusal_has_a_code_and_a_reason_on_the_wire() -> None:
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, QgjobError)]
    reasons = {kind.reason for kind in kinds if kind is not QgjobError}
    assert reasons <= set(wire.CODES)
    assert {f"REASON_{reason}" for reason in wire.CODES} == {
        value.name for value in error_pb2.Reason.DESCRIPTOR.values if value.number
    }


def test_record_of_a_job_is_told_whole() -> None:
    attempt = an_attempt(outcome=m.AttemptOutcome.FAILED)
    failure = m.Failure(reason="TEST_FAILED", message="no", blame=m.Blame.TEST)
    job = m.Job(
        id=m.JobId(7),
        sequence=m.SubmitSequence(9),
        spec=a_job(labels={"a": "b"}).spec,
        state=m.JobState.FAILED,
        create_us=1_500_000,
        start_us=2_000_000,
        end_us=3_000_000,
        attempt=m.AttemptId(1),
        attempt_count=2,
        device=m.DeviceId("pixel"),
        agent=m.AgentId("host"),
        failure=failure,
        is_cancel_requested=True,
        preemptions=1,
        retry_of=m.JobId(3),
    )
    told = wire.job_out(job, position=4, attempts=[wire.attempt_out(attempt, "complete")])
    assert (told.id, told.state, told.lane) == (7, job_pb2.JOB_STATE_FAILED, job_pb2.LANE_NORMAL)
    assert (told.create_time.ToMicroseconds(), told.start_time.seconds, told.end_time.seconds) == (1_500_000, 2, 3)
    assert (told.failure.reason, told.failure.blame) == ("TEST_FAILED", job_pb2.BLAME_TEST)
    assert (told.queue_position, told.retry_of, told.preemptions, told.cancel_requested) == (4, 3, 1, True)
    assert told.attempts[0].log_state == job_pb2.LOG_STATE_COMPLETE
    assert told.attempts[0].outcome == job_pb2.ATTEMPT_OUTCOME_FAILED


def test_what_is_not_known_of_a_job_stays_unset() -> None:
    told = wire.job_out(a_job())
    for field in ("start_time", "end_time", "failure", "expected_start_time"):
        assert not told.HasField(field)
    assert (told.device, told.agent, told.retry_of, told.queue_position) == ("", "", 0, 0)


def test_records_of_the_lab_are_told_whole() -> None:
    device = wire.device_out(a_device(), job=m.JobId(4), utilisation_ppm=250_000)
    assert (device.facts.id, device.job_id, device.utilisation) == ("pixel", 4, 0.25)
    assert not device.builds
    agent = wire.agent_out(an_agent(), devices=2, leases=1)
    assert (agent.id, agent.devices, agent.leases, agent.seen_time.ToMicroseconds()) == ("host", 2, 1, 8)
    assert list(agent.lanes) == [job_pb2.LANE_HIGH, job_pb2.LANE_NORMAL]
    assert list(agent.orgs) == ["acme", "globex, inc."]
    build = wire.build_out(a_build())
    assert (build.app_version_id, build.installs, build.install_time.ToMicroseconds()) == ("1.2.0", 3, 2)
    lanes = dict.fromkeys(m.Lane, 2)
    status: queue_pb2.QueueStatus = wire.queue_status_out(
        queued=lanes,
        running=lanes,
        running_jobs=(),
        waiting_jobs=(),
        counters=m.Counters(installs_avoided=3, saved_us=9),
        drain_us=7,
        batches=(wire.batch_out(a_lease(), m.JobId(4)),),
        devices={m.DeviceState.IDLE: 2},
    )
    assert (status.installs_avoided, status.time_saved.ToMicroseconds(), len(status.lanes)) == (3, 9, 3)
    assert status.expected_drain_time.ToMicroseconds() == 7
    assert [(one.device, one.job_id, one.jobs_left) for one in status.batches] == [("pixel", 4, 0)]
    assert [(one.state, one.count) for one in status.devices] == [(device_pb2.DEVICE_STATE_IDLE, 2)]


def test_lease_is_told_as_a_snapshot() -> None:
    leased = LeasedJob(attempt=an_attempt(), job=a_job())
    send = SendLease(
        session=SESSION,
        lease=a_lease(),
        jobs=(leased,),
        revoked=((m.AttemptId(8), m.RevokeReason.PREEMPT),),
        grace_us=1_500_000,
    )
    lease = wire.command(send).adopt_lease.lease
    assert (lease.key.lease_id, lease.key.fence.epoch, lease.key.fence.number, lease.revision) == (1, 1, 1, 1)
    assert [(job.attempt_id, job.job_id, job.test) for job in lease.jobs] == [(1, 1, "tests/spec1.ts")]
    assert [(one.attempt_id, one.reason) for one in lease.revoked] == [(8, lease_pb2.REVOKE_REASON_PREEMPT)]
    assert lease.grace.ToMicroseconds() == 1_500_000


def test_other_commands_are_told() -> None:
    fence = m.Fence(2, 3)
    close = wire.command(SendClose(session=SESSION, lease=m.LeaseId(1), fence=fence, why="over")).close_lease
    assert (close.key.fence.number, close.reason, close.device_id) == (3, "over", "")
    awaited = SendClose(session=SESSION, lease=m.LeaseId(1), fence=fence, why="over", device=m.DeviceId("phone"))
    assert wire.command(awaited).close_lease.device_id == "phone"
    acknowledged = SendResultsAcknowledged(session=SESSION, attempts=(m.AttemptId(4),))
    assert wire.command(acknowledged).acknowledge_results.attempt_ids == [4]
    beat = SendHeartbeatAcknowledged(session=SESSION, sequence=5)
    assert wire.command(beat).acknowledge_heartbeat.sequence == 5
    for send in (SendWelcome(session=SESSION), CloseSession(session=SESSION, why="")):
        with pytest.raises(AssertionError):
            wire.command(send)


# What agents say


def is_storable(text: str, most: int) -> bool:
    return len(text) <= most and "\x00" not in text


@given(anything, anything, anything, any_key, any_id, any_id, any_span)
def test_no_result_holds_what_the_database_refuses(
    one: str, two: str, three: str, key: lease_pb2.LeaseKey, attempt: int, log_size: int, span: Duration
) -> None:
    message = lease_pb2.AttemptResult(
        attempt_id=attempt,
        key=key,
        outcome=job_pb2.ATTEMPT_OUTCOME_FAILED,
        failure=job_pb2.Failure(reason=one, message=two),
        tests=[job_pb2.TestResult(id=one, title=two, error=three, duration=span)],
        log_size=log_size,
        log_sha256=one,
        build_digest=two,
    )
    event = wire.agent_event(
        SESSION,
        agent_service_pb2.ConnectRequest(attempt_finished=agent_service_pb2.AttemptFinished(result=message)),
    )
    assert isinstance(event, AttemptFinished)
    assert event.failure is not None
    assert event.failure.reason
    test = event.tests[0]
    for text in (event.failure.reason, event.failure.message, test.id, test.title, test.error):
        assert is_storable(text, 300)
    for text in (event.log_sha256, event.build_digest):
        assert is_storable(text, 64)
    assert 0 <= event.log_size < 2**63
    assert 0 <= test.duration_us < 2**63


@given(anything, anything, any_key, any_span)
def test_no_install_or_test_holds_what_the_database_refuses(
    one: str, two: str, key: lease_pb2.LeaseKey, span: Duration
) -> None:
    install = agent_service_pb2.BuildInstalled(key=key, digest=one, duration=span)
    event = wire.agent_event(SESSION, agent_service_pb2.ConnectRequest(build_installed=install))
    assert isinstance(event, BuildInstalled)
    assert is_storable(event.digest, 64)
    assert 0 <= event.install_us < 2**63
    reported = agent_service_pb2.TestReported(key=key, test=job_pb2.TestResult(id=one, title=two, error=two))
    event_ = wire.agent_event(SESSION, agent_service_pb2.ConnectRequest(test_reported=reported))
    assert isinstance(event_, TestReported)
    assert all(is_storable(text, 300) for text in (event_.test.id, event_.test.title, event_.test.error))


@given(anything, anything)
def test_no_hello_holds_what_the_database_refuses(one: str, two: str) -> None:
    device = device_pb2.DeviceFacts(
        id="pixel",
        kind=device_pb2.DEVICE_KIND_DEVICE,
        platform=one,
        model=two,
        os_version=one,
        udid=two,
        reason=one,
    )
    hello = agent_service_pb2.Hello(agent_id="lab", boot_id="b", version=one, host=two, devices=[device])
    event = wire.agent_connected(SESSION, hello, CLUSTER)
    facts = event.devices[0]
    for text in (event.version, event.host, facts.platform, facts.model, facts.os_version, facts.udid, facts.reason):
        assert is_storable(text, 300)


def test_error_of_a_test_keeps_its_lines_and_colours() -> None:
    message = job_pb2.TestResult(id="t", error="\x1b[31mno\x1b[0m\r\n\tat a.ts\x00\x07")
    event = wire.agent_event(
        SESSION, agent_service_pb2.ConnectRequest(test_reported=agent_service_pb2.TestReported(test=message))
    )
    assert isinstance(event, TestReported)
    assert event.test.error == "\x1b[31mno\x1b[0m \n\tat a.ts  "


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    """Whatever protobuf can read is either an event or refused by name."""
    for kind in (agent_service_pb2.ConnectRequest, job_service_pb2.SubmitJobsRequest):
        message = kind()
        try:
            message.ParseFromString(data)
        except Exception as error:  # noqa: BLE001 - protobuf's own kinds of error differ between its implementations
            assert "DecodeError" in type(error).__name__  # noqa: PT017
            continue
        try:
            if isinstance(message, agent_service_pb2.ConnectRequest):
                wire.agent_event(SESSION, message)
                wire.agent_connected(SESSION, message.hello, CLUSTER)
            else:
                wire.job_specs(message)
        except InvalidRequest as refusal:
            assert refusal.fields["field"]  # noqa: PT017


@pytest.mark.parametrize(("cluster_id", "is_taken"), [("", True), (CLUSTER, True), ("another", False)])
def test_only_what_was_held_of_this_database_is_taken(cluster_id: str, is_taken: bool) -> None:
    result = lease_pb2.AttemptResult(attempt_id=1, outcome=job_pb2.ATTEMPT_OUTCOME_PASSED)
    hello = agent_service_pb2.Hello(
        agent_id="lab", boot_id="b", cluster_id=cluster_id, leases=[lease_pb2.LeaseEcho()], results=[result]
    )
    event: AgentConnected = wire.agent_connected(SESSION, hello, CLUSTER)
    assert (len(event.leases), len(event.results)) == ((1, 1) if is_taken else (0, 0))
    assert event.is_stranger is not is_taken


def test_unknown_words_of_an_agent_are_taken_for_the_nearest_known() -> None:
    message = job_pb2.TestResult(id="t", state=99)  # type: ignore[arg-type]
    event = wire.agent_event(
        SESSION, agent_service_pb2.ConnectRequest(test_reported=agent_service_pb2.TestReported(test=message))
    )
    assert isinstance(event, TestReported)
    assert event.test.state is m.TestState.INTERRUPTED
    assert wire.failure(job_pb2.Failure(blame=99)) == m.Failure(reason="UNKNOWN", message="", blame=None)  # type: ignore[arg-type]


def test_heartbeat_keeps_its_echoes() -> None:
    echo = lease_pb2.LeaseEcho(
        key=lease_pb2.LeaseKey(lease_id=1, fence=lease_pb2.Fence(epoch=2, number=3)),
        revision=4,
        started_attempt_ids=[5, 6],
        finished_attempt_ids=[5],
    )
    beat = agent_service_pb2.Heartbeat(sequence=7, leases=[echo])
    event = wire.agent_event(SESSION, agent_service_pb2.ConnectRequest(heartbeat=beat))
    assert isinstance(event, HeartbeatReceived)
    held = event.leases[0]
    assert (event.sequence, held.lease, held.fence, held.revision) == (7, 1, m.Fence(2, 3), 4)
    assert (held.started, held.finished) == ((5, 6), (5,))


def test_answer_for_a_closed_lease_names_lease_and_device() -> None:
    closed = agent_service_pb2.LeaseClosed(key=lease_pb2.LeaseKey(lease_id=7), device_id="phone")
    event = wire.agent_event(SESSION, agent_service_pb2.ConnectRequest(lease_closed=closed))
    assert event == LeaseClosed(session=SESSION, lease=m.LeaseId(7), device=m.DeviceId("phone"))


@pytest.mark.parametrize("answers", [True, False])
def test_hello_says_whether_the_agent_answers_for_closed_leases(answers: bool) -> None:
    hello = agent_service_pb2.Hello(agent_id="lab", boot_id="b", answers_close=answers)
    assert wire.agent_connected(SESSION, hello, "c").answers_close is answers


@pytest.mark.parametrize(
    ("told", "lanes"),
    [
        ((), m.ALL_LANES),
        ((job_pb2.LANE_LOW, job_pb2.LANE_HIGH, job_pb2.LANE_LOW), (m.Lane.HIGH, m.Lane.LOW)),
        ((job_pb2.LANE_LOW, job_pb2.LANE_NORMAL, job_pb2.LANE_HIGH), m.ALL_LANES),
    ],
)
def test_hello_says_which_lanes_the_agent_serves(
    told: tuple[job_pb2.Lane.ValueType, ...], lanes: tuple[m.Lane, ...]
) -> None:
    hello = agent_service_pb2.Hello(agent_id="lab", boot_id="b", lanes=told)
    assert wire.agent_connected(SESSION, hello, "c").lanes == lanes


def test_lane_that_nobody_knows_is_refused() -> None:
    hello = agent_service_pb2.Hello(agent_id="lab", boot_id="b", lanes=[7])  # type: ignore[list-item]
    with pytest.raises(InvalidRequest):
        wire.agent_connected(SESSION, hello, "c")


def test_hello_says_which_organisations_the_agent_serves_each_once_and_sorted() -> None:
    hello = agent_service_pb2.Hello(agent_id="lab", boot_id="b", orgs=["globex", "acme", "globex"])
    assert wire.agent_connected(SESSION, hello, "c").orgs == ("acme", "globex")
    assert wire.agent_connected(SESSION, agent_service_pb2.Hello(agent_id="lab", boot_id="b"), "c").orgs == ()


@pytest.mark.parametrize("orgs", [[""], ["a\nb"], ["x" * 1_000], [f"org-{number}" for number in range(101)]])
def test_organisations_that_could_have_no_job_or_are_too_many_are_refused(orgs: list[str]) -> None:
    hello = agent_service_pb2.Hello(agent_id="lab", boot_id="b", orgs=orgs)
    with pytest.raises(InvalidRequest) as refusal:
        wire.agent_connected(SESSION, hello, "c")
    assert refusal.value.fields["field"] == "orgs"


def failed_in(attempt: int, number: int, size: int) -> job_pb2.TestResult:
    return job_pb2.TestResult(id=f"t{number}", state=job_pb2.TEST_STATE_FAILED, error="e" * size, attempt=attempt)


def test_job_that_failed_a_great_deal_in_every_attempt_fits_into_an_answer() -> None:
    earlier = [failed_in(attempt, number, 16_384) for attempt in range(1, 11) for number in range(30)]
    job = job_pb2.Job(id=1, tests=[failed_in(11, number, 16_384) for number in range(30)], earlier_failures=earlier)
    assert job.ByteSize() > wire.MAX_MESSAGE_BYTES
    tests = list(job.tests)
    cut = wire.within_bounds(job)
    assert job_service_pb2.ListJobsResponse(jobs=[cut], next_page_token="1").ByteSize() < wire.MAX_MESSAGE_BYTES
    assert list(cut.tests) == tests, "the newest results come first"
    assert list(cut.earlier_failures) == earlier[-len(cut.earlier_failures) :] != []
    assert {test.attempt for test in earlier[: -len(cut.earlier_failures)]} < set(range(1, 11)), "the oldest went"


def test_errors_are_shortened_where_the_results_of_one_attempt_have_no_room() -> None:
    job = job_pb2.Job(id=1, tests=[failed_in(1, number, 16_384) for number in range(400)])
    cut = wire.within_bounds(job)
    assert cut.ByteSize() < wire.MAX_LISTED_BYTES
    assert len(cut.tests) == 400
    assert all(test.error for test in cut.tests)


def test_job_that_fits_is_told_whole() -> None:
    job = job_pb2.Job(id=1, earlier_failures=[failed_in(1, 1, 100)])
    whole = job_pb2.Job()
    whole.CopyFrom(job)
    assert wire.within_bounds(job) == whole
