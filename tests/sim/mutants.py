"""I10: the simulation can fail. Each planted defect breaks the real code in one spot, and some seed must notice.

python -m tests.sim.mutants             run each defect on the seed that caught it
python -m tests.sim.mutants --search    look for those seeds anew
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from agent import wire
from agent.core.events import AttemptEnded
from agent.core.leases import Leases
from agent.core.logsender import LogSender
from agent.core.model import DeviceId, LeaseKey, LeaseSpec, Now
from agent.core.step import KeepResult, ReportClosed
from coordinator.core import families, heads, lanes, pools, requests, transitions
from coordinator.core.accounts import Accounts
from coordinator.core.contests import Contests
from coordinator.core.crossings import Crossings
from coordinator.core.dispatch import Dispatcher
from coordinator.core.events import AgentConnected, AgentDisconnected, JobsSubmitted
from coordinator.core.fleet import Fleet
from coordinator.core.ledger import Ledger
from coordinator.core.model import (
    AgentId,
    AttemptOutcome,
    Counters,
    DeviceState,
    Job,
    Lease,
    LeaseState,
    RevokeReason,
    SessionId,
)
from coordinator.core.model import Device as Suspect
from coordinator.core.model import Now as CoordinatorNow
from coordinator.core.policy import Choice
from coordinator.core.requests import Requests
from coordinator.core.scheduler import Scheduler
from coordinator.core.sessions import Sessions
from coordinator.core.step import SendLease
from coordinator.core.suspicion import Suspicion
from coordinator.core.trials import Trials
from coordinator.wire import to_agents
from qgjob.v1.lease_pb2 import LeaseSpec as LeaseSpecMessage
from tests.sim.coordinator import Answers, CoordinatorProcess, Facts
from tests.sim.database import Database
from tests.sim.device import Device
from tests.sim.draw import draw_plan
from tests.sim.shelf import Shelf
from tests.sim.simulation import simulate
from tests.sim.spool import Spool

MOST_SEEDS = 1_000

Plant = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A planted defect, and the first seed that noticed it."""

    name: str
    plant: Plant
    seed: int


def replacing(owner: Any, name: str, make: Callable[[Any], Any]) -> Plant:  # noqa: ANN401 - a class or a module
    """Return a defect that replaces one function, given the sound one."""
    return lambda: patch.object(owner, name, make(getattr(owner, name)))


# Suspicion


def _await_a_canary_in_every_quarantine(_sound: Any) -> Any:  # noqa: ANN401
    def awaits_canary(_self: Suspicion, device: Suspect) -> bool:
        return device.state is DeviceState.QUARANTINED and device.lease is None

    return awaits_canary


def _forget_canaries_while_one_flies(sound: Any) -> Any:  # noqa: ANN401
    def look(self: Suspicion, *times: Any) -> None:  # noqa: ANN401
        ledger = self._ledger
        for device in list(ledger.suspects):
            if any(lease.is_canary for lease in ledger.fleet.leases.values()):
                del ledger.suspects[device]
        sound(self, *times)

    return look


# Fences and epochs


def _adopt_whatever_comes(sound: Any) -> Any:  # noqa: ANN401 - the sound function
    def adopt(self: Leases, lease: LeaseSpec, now: Now) -> None:
        self._fences.pop(lease.device_id, None)
        sound(self, lease, now)

    return adopt


def _write_in_any_epoch(_sound: Any) -> Any:  # noqa: ANN401
    def commit(self: Database, _epoch: int, writes: Any) -> None:  # noqa: ANN401
        for write in writes:
            self.records.apply(write)

    return commit


def _start_from_live_rows(sound: Any) -> Any:  # noqa: ANN401
    def start_epoch(self: Database) -> Counters:
        counters = sound(self)
        highest = max((job.id for job in self.records.live_jobs()), default=0)
        self.records.counters = replace(counters, next_job=highest + 1)
        return self.records.counters

    return start_epoch


def _acknowledge_without_leadership(_sound: Any) -> Any:  # noqa: ANN401
    return lambda _self: True


# The order of a turn


def _tell_before_commit(sound: Any) -> Any:  # noqa: ANN401
    def commit(self: CoordinatorProcess, now: CoordinatorNow, facts: Facts, answers: Answers, writes: Any) -> None:  # noqa: ANN401
        self.deliver(facts, answers)
        sound(self, now, facts, [], writes)

    return commit


def _expire_before_the_inbox(_sound: Any) -> Any:  # noqa: ANN401
    def take_facts(self: CoordinatorProcess, now: CoordinatorNow) -> tuple[Facts, Answers]:
        expired = self.scheduler.expire(now)
        facts, answers = self.handle_inbox(now)
        return [(None, expired), *facts], answers

    return take_facts


def _count_pauses(_sound: Any) -> Any:  # noqa: ANN401
    def advance(self: Scheduler, now: CoordinatorNow) -> int:
        self._last_turn = now
        self.ledger.queues.advance(now.wall_us)
        return now.mono_us

    return advance


def _restore_without_hold(sound: Any) -> Any:  # noqa: ANN401
    def restore(self: Scheduler, **records: Any) -> Any:  # noqa: ANN401
        step = sound(self, **records)
        for lease in list(self.ledger.fleet.leases.values()):
            self.ledger.fleet.renew(lease.id, records["now"].mono_us + self._settings.lease_ttl_us // 3)
        return step

    return restore


# Sessions


def _lose_leases_with_the_link(sound: Any) -> Any:  # noqa: ANN401
    def disconnect(self: Sessions, event: AgentDisconnected, now: CoordinatorNow, lab_us: int) -> None:
        sound(self, replace(event, is_goodbye=True), now, lab_us)

    return disconnect


def _close_before_results(sound: Any) -> Any:  # noqa: ANN401
    def connect(self: Sessions, event: AgentConnected, now: CoordinatorNow, lab_us: int) -> None:
        for lease in self._ledger.fleet.leases_of(event.agent):
            if lease.boot_id != event.boot_id:
                self._ledger.close_lease(lease, LeaseState.EXPIRED, "the agent was started again", now)
        sound(self, event, now, lab_us)

    return connect


@contextmanager
def _stale_disconnects_accepted() -> Iterator[None]:
    """Let the end of any session, old or new, end the agent's newest."""
    agents: dict[tuple[Fleet, SessionId], AgentId] = {}
    sound_open, sound_close = Fleet.open_session, Fleet.close_session

    def open_session(
        self: Fleet, agent: AgentId, session: SessionId, lab_us: int, *, answers_close: bool
    ) -> SessionId | None:
        agents[self, session] = agent
        return sound_open(self, agent, session, lab_us, answers_close=answers_close)

    def close_session(self: Fleet, session: SessionId) -> AgentId | None:
        agent = agents.get((self, session))
        newest = self.session_of(agent) if agent is not None else None
        return sound_close(self, session if newest is None else newest)

    with patch.object(Fleet, "open_session", open_session), patch.object(Fleet, "close_session", close_session):
        yield


def _free_devices_at_expiry(sound: Any) -> Any:  # noqa: ANN401
    def close_lease(self: Ledger, lease: Lease, state: LeaseState, why: str, now: CoordinatorNow) -> None:
        sound(self, lease, state, why, now)
        if state is LeaseState.EXPIRED:
            self.free_device(self.fleet.devices[lease.device])

    return close_lease


def _answer_before_the_end(sound: Any) -> Any:  # noqa: ANN401
    def close_device(self: Leases, device: DeviceId, key: LeaseKey, now: Now) -> None:
        sound(self, device, key, now)
        self._outbox.send(ReportClosed(key=key, device_id=device))

    return close_device


# Operators and other agents


def _hold_nothing(_sound: Any) -> Any:  # noqa: ANN401
    return lambda _self, _device: False


def _take_any_device(_sound: Any) -> Any:  # noqa: ANN401
    return lambda _self, _device, _agent: False


def _serve_any_organisation(_sound: Any) -> Any:  # noqa: ANN401
    return lambda _facts, _org: True


def _take_nothing_up(_sound: Any) -> Any:  # noqa: ANN401
    return lambda _self, _records: None


# Batches


def _requeue_before_the_echo(sound: Any) -> Any:  # noqa: ANN401
    def revoke(self: Ledger, lease: Lease, attempts: Any, reason: RevokeReason) -> None:  # noqa: ANN401
        sound(self, lease, attempts, reason)
        for attempt_id in attempts:
            attempt = self.attempts.get(attempt_id)
            if attempt is not None and attempt.start_us is None:
                now = CoordinatorNow(mono_us=0, wall_us=attempt.assign_us)
                self.end_attempt(attempt, AttemptOutcome.RELEASED, None, now)

    return revoke


def _family_without_the_build(sound: Any) -> Any:  # noqa: ANN401
    def family_of(job: Job) -> families.FamilyKey:
        key: families.FamilyKey = sound(job)
        return families.FamilyKey(replace(key.app, app_version_id="", digest=""), key.signature)

    return family_of


def _lease_without_the_build(sound: Any) -> Any:  # noqa: ANN401
    def lease_spec(send: SendLease) -> LeaseSpecMessage:
        message: LeaseSpecMessage = sound(send)
        message.ClearField("build_digest")
        return message

    return lease_spec


def _top_up_without_the_gate(_sound: Any) -> Any:  # noqa: ANN401
    def top_up(self: Dispatcher, lease: Lease, now: CoordinatorNow) -> bool:
        family = self._ledger.queues.family(self._ledger.fleet.family_of(lease.id))
        lanes = self._ledger.fleet.devices[lease.device].facts.lanes
        jobs = self._take(Choice(family, 0, lanes, []), lease) if family is not None and family.size else []
        if jobs:
            self._ledger.extend(lease, jobs, now)
        return bool(jobs)

    return top_up


def _serve_any_lane(sound: Any) -> Any:  # noqa: ANN401
    def first_bucket(self: heads.Heads, family: families.Family, _lanes: Any = None) -> Any:  # noqa: ANN401
        return sound(self, family)

    return first_bucket


def _forget_requests(sound: Any) -> Any:  # noqa: ANN401
    def submit(self: Requests, event: JobsSubmitted, now: CoordinatorNow) -> Any:  # noqa: ANN401
        self._ledger.requests.clear()
        return sound(self, replace(event, known=None), now)

    return submit


# Clouds


def _find_room_anywhere(_sound: Any) -> Any:  # noqa: ANN401
    return lambda _self, _device: False


def _let_everybody_spill(_sound: Any) -> Any:  # noqa: ANN401
    return lambda _spec, _spill: True


# The agent


def _call_every_spec_resumable(sound: Any) -> Any:  # noqa: ANN401
    def attempt_ended(self: Leases, event: AttemptEnded, now: Now) -> None:
        sound(self, replace(event, is_resumable=True), now)

    return attempt_ended


def _forget_kept_failures(_sound: Any) -> Any:  # noqa: ANN401
    return lambda _kept: None


def _tell_nothing_of_done_tests(sound: Any) -> Any:  # noqa: ANN401
    def lease(message: Any) -> LeaseSpec:  # noqa: ANN401
        spec: LeaseSpec = sound(message)
        return replace(spec, jobs=tuple(replace(job, done=()) for job in spec.jobs))

    return lease


def _start_what_was_taken_back(sound: Any) -> Any:  # noqa: ANN401
    def revise(self: Leases, slot: Any, lease: LeaseSpec, now: Now) -> None:  # noqa: ANN401
        kept = [job for job in slot.lease.jobs if job not in lease.jobs]
        sound(self, slot, replace(lease, jobs=(*kept, *lease.jobs), revoked=()), now)

    return revise


def _forget_results_at_once(sound: Any) -> Any:  # noqa: ANN401
    def commit(self: Spool, writes: Any) -> None:  # noqa: ANN401
        sound(self, tuple(write for write in writes if not isinstance(write, KeepResult)))

    return commit


def _forget_what_was_begun(sound: Any) -> Any:  # noqa: ANN401
    def recall(self: Spool) -> Any:  # noqa: ANN401
        self.begun.clear()
        return sound(self)

    return recall


def _free_logs_that_are_not_whole(sound: Any) -> Any:  # noqa: ANN401
    def answered(self: Any, committed: int, *, is_closed: bool) -> Any:  # noqa: ANN401
        return sound(self, committed, is_closed=is_closed or self.is_finish_sent)

    return answered


def _drop_the_lock_with_the_agent(sound: Any) -> Any:  # noqa: ANN401
    def lose_agent(self: Device, holder: str) -> None:
        sound(self, holder)
        self.release("supervisor")

    return lose_agent


MUTANTS = (
    Mutant(name="no fence test", plant=replacing(Leases, "adopt", _adopt_whatever_comes), seed=31),
    Mutant(name="epoch not checked by the database", plant=replacing(Database, "commit", _write_in_any_epoch), seed=1),
    Mutant(
        name="acknowledge before commit", plant=replacing(CoordinatorProcess, "commit", _tell_before_commit), seed=0
    ),
    Mutant(
        name="no grace for a lost link", plant=replacing(Sessions, "disconnect", _lose_leases_with_the_link), seed=0
    ),
    Mutant(
        name="expire before the inbox",
        plant=replacing(CoordinatorProcess, "take_facts", _expire_before_the_inbox),
        seed=84,
    ),
    Mutant(name="pauses count as silence", plant=replacing(Scheduler, "_advance", _count_pauses), seed=0),
    Mutant(name="no hold after a start", plant=replacing(Scheduler, "restore", _restore_without_hold), seed=1),
    Mutant(
        name="requeue a revoked tail before its echo",
        plant=replacing(Ledger, "revoke", _requeue_before_the_echo),
        seed=8,
    ),
    Mutant(
        name="close leases before the results of Hello",
        plant=replacing(Sessions, "connect", _close_before_results),
        seed=0,
    ),
    Mutant(name="accept a stale disconnect", plant=_stale_disconnects_accepted, seed=3),
    Mutant(name="counters from the live rows", plant=replacing(Database, "start_epoch", _start_from_live_rows), seed=1),
    Mutant(
        name="acknowledge a log after leadership is lost",
        plant=replacing(Shelf, "may_acknowledge", _acknowledge_without_leadership),
        seed=4,
    ),
    Mutant(name="family without the build", plant=replacing(lanes, "family_of", _family_without_the_build), seed=0),
    Mutant(
        name="lease without the build",
        plant=replacing(to_agents, "_lease_spec", _lease_without_the_build),
        seed=0,
    ),
    Mutant(name="top-up without the gate", plant=replacing(Dispatcher, "_top_up", _top_up_without_the_gate), seed=8),
    Mutant(name="device free at expiry", plant=replacing(Ledger, "close_lease", _free_devices_at_expiry), seed=1),
    Mutant(
        name="answer for a closed lease before its end",
        plant=replacing(Leases, "_close_device", _answer_before_the_end),
        seed=1,
    ),
    Mutant(name="holds ignored", plant=replacing(Ledger, "is_held", _hold_nothing), seed=0),
    Mutant(
        name="devices of other agents taken",
        plant=replacing(Contests, "has", _take_any_device),
        seed=14,
    ),
    Mutant(name="lanes of agents ignored", plant=replacing(heads.Heads, "first_bucket", _serve_any_lane), seed=7),
    Mutant(name="accounts of clouds not shared", plant=replacing(Accounts, "is_full", _find_room_anywhere), seed=5),
    Mutant(name="everybody spills", plant=replacing(requests, "may_spill", _let_everybody_spill), seed=5),
    Mutant(name="requests forgotten", plant=replacing(Requests, "submit", _forget_requests), seed=0),
    Mutant(
        name="start what was taken back",
        plant=replacing(Leases, "_revise", _start_what_was_taken_back),
        seed=0,
    ),
    Mutant(
        name="tied tests kept",
        plant=replacing(Leases, "attempt_ended", _call_every_spec_resumable),
        seed=2,
    ),
    Mutant(
        name="failure of a kept test forgotten",
        plant=replacing(transitions, "failure_of", _forget_kept_failures),
        seed=107,
    ),
    Mutant(
        name="done tests not told to the next agent",
        plant=replacing(wire, "_lease", _tell_nothing_of_done_tests),
        seed=1,
    ),
    Mutant(name="results not kept", plant=replacing(Spool, "commit", _forget_results_at_once), seed=0),
    Mutant(name="journal lost", plant=replacing(Spool, "recall", _forget_what_was_begun), seed=78),
    Mutant(
        name="log freed before it is whole",
        plant=replacing(LogSender, "answered", _free_logs_that_are_not_whole),
        seed=9,
    ),
    Mutant(
        name="canary in every quarantine",
        plant=replacing(Suspicion, "_awaits_canary", _await_a_canary_in_every_quarantine),
        seed=38,
    ),
    Mutant(
        name="canary forgotten while another flies",
        plant=replacing(Suspicion, "look", _forget_canaries_while_one_flies),
        seed=40,
    ),
    Mutant(name="organisations of agents ignored", plant=replacing(pools, "_is_for", _serve_any_organisation), seed=7),
    Mutant(name="crossings not taken up", plant=replacing(Crossings, "restore", _take_nothing_up), seed=0),
    Mutant(name="trials not taken up", plant=replacing(Trials, "restore", _take_nothing_up), seed=0),
    Mutant(
        name="lock dropped with the agent",
        plant=replacing(Device, "lose_agent", _drop_the_lock_with_the_agent),
        seed=28,
    ),
)


def caught(mutant: Mutant, seed: int) -> str:
    """Return the first breach of a seed with the defect in place, an empty string if nothing was noticed.

    Raises:
        AssertionError: The defect does not fit the code that it is planted in any more.
    """
    with mutant.plant():
        breaches = simulate(draw_plan(seed)).breaches
    misfits = [breach for breach in breaches if "TypeError" in breach or "AttributeError" in breach]
    assert not misfits, f"mend the planted defect {mutant.name!r}: {misfits[0]}"
    return breaches[0].strip() if breaches else ""


def search(mutant: Mutant, most_seeds: int = MOST_SEEDS) -> tuple[int, str] | None:
    """Return the first seed that notices a defect, and what it says."""
    for seed in range(most_seeds):
        if breach := caught(mutant, seed):
            return seed, breach
    return None


def main(arguments: list[str]) -> int:
    """Run or search all defects, or those named."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutants", description="Plant defects and look for them.")
    parser.add_argument("--search", action="store_true", help="look for the first seed that notices each")
    parser.add_argument("names", nargs="*", help="part of a defect's name")
    chosen = parser.parse_args(arguments)
    missed = 0
    for mutant in _named(chosen.names):
        found = search(mutant) if chosen.search else (mutant.seed, caught(mutant, mutant.seed))
        if found is None or not found[1]:
            missed += 1
            sys.stdout.write(f"MISSED  {mutant.name}\n")
        else:
            sys.stdout.write(f"seed {found[0]:3d}  {mutant.name}: {found[1]}\n")
        sys.stdout.flush()
    return 1 if missed else 0


def _named(names: list[str]) -> Iterator[Mutant]:
    return (mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
