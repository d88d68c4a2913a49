"""The enums of the wire and those of the core, both ways."""

from __future__ import annotations

from typing import Final

from coordinator.core import model as m
from coordinator.core.artifacts import ArtifactKind
from qgjob.v1 import (
    agent_pb2,
    artifact_pb2,
    device_pb2,
    job_pb2,
    lease_pb2,
)

TARGETS_OUT: Final = {target: job_pb2.Target.Value(f"TARGET_{target.name}") for target in m.Target}
TARGETS: Final[dict[int, m.Target]] = {
    job_pb2.TARGET_UNSPECIFIED: m.Target.ANY,
    **{number: target for target, number in TARGETS_OUT.items()},
}
JOB_STATES_OUT: Final = {state: job_pb2.JobState.Value(f"JOB_STATE_{state.name}") for state in m.JobState}
JOB_STATES: Final[dict[int, m.JobState]] = {number: state for state, number in JOB_STATES_OUT.items()}
OUTCOMES_OUT: Final = {
    outcome: job_pb2.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{outcome.name}") for outcome in m.AttemptOutcome
}
OUTCOMES: Final = {number: outcome for outcome, number in OUTCOMES_OUT.items()}
LANES_OUT: Final = {lane: job_pb2.Lane.Value(f"LANE_{lane.name}") for lane in m.Lane}
LANES: Final = {number: lane for lane, number in LANES_OUT.items()}
BLAMES_OUT: Final = {blame: job_pb2.Blame.Value(f"BLAME_{blame.name}") for blame in m.Blame}
BLAMES: Final = {number: blame for blame, number in BLAMES_OUT.items()}
TESTS_OUT: Final = {state: job_pb2.TestState.Value(f"TEST_STATE_{state.name}") for state in m.TestState}
TESTS: Final = {number: state for state, number in TESTS_OUT.items()}
ARTIFACTS_OUT: Final = {kind: artifact_pb2.ArtifactKind.Value(f"ARTIFACT_KIND_{kind.name}") for kind in ArtifactKind}
ARTIFACTS: Final[dict[int, ArtifactKind]] = {number: kind for kind, number in ARTIFACTS_OUT.items()}
KINDS_OUT: Final = {kind: device_pb2.DeviceKind.Value(f"DEVICE_KIND_{kind.name}") for kind in m.DeviceKind}
KINDS: Final = {number: kind for kind, number in KINDS_OUT.items()}
DEVICE_STATES_OUT: Final = {
    state: device_pb2.DeviceState.Value(f"DEVICE_STATE_{state.name}") for state in m.DeviceState
}
HOLDS_OUT: Final = {hold: device_pb2.DeviceHold.Value(f"DEVICE_HOLD_{hold.name}") for hold in m.DeviceHold}
AGENT_STATES_OUT: Final = {state: agent_pb2.AgentState.Value(f"AGENT_STATE_{state.name}") for state in m.AgentState}
REVOKES_OUT: Final = {reason: lease_pb2.RevokeReason.Value(f"REVOKE_REASON_{reason.name}") for reason in m.RevokeReason}
