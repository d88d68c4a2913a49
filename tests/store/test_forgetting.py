"""A forgotten agent and its devices are not read again; what they did keeps their names."""

from __future__ import annotations

from sqlalchemy import text

from coordinator.core.events import AgentDisconnected, AgentForgetRequested
from coordinator.core.model import (
    AgentId,
    AttemptId,
    AttemptOutcome,
    DeviceId,
    DeviceKind,
    JobId,
    JobState,
    LeaseState,
    SessionId,
)
from coordinator.core.step import DropAgent, DropDevice, PutAgent, PutAttempt, PutDevice, PutJob, PutLease, Write
from coordinator.store import Store
from coordinator.store.dialect import checked_url, history_engine
from coordinator.store.history import read_history
from tests.store.conftest import OpenStore
from tests.store.past import recorded
from tests.store.records import a_device, a_job, a_lease, an_agent, an_attempt
from tests.store.test_pruning import commit_ended, forget_older_than

IDLE = a_device("idle")
DROPS: list[Write] = [DropDevice(DeviceId("pixel")), DropDevice(IDLE.id), DropAgent(AgentId("host"))]


def commit_a_past(store: Store) -> None:
    """Commit an agent with two devices, one of which has run a job."""
    store.commit([PutAgent(an_agent()), PutDevice(IDLE)])
    commit_ended(store, 1, end_us=10)


def rows_of_devices(url: str) -> list[str]:
    engine = history_engine(checked_url(url))
    with engine.connect() as connection:
        found = [str(name) for name in connection.scalars(text("SELECT id FROM devices ORDER BY id"))]
    engine.dispose()
    return found


def test_agent_and_devices_are_not_read_again_by_anybody(open_store: OpenStore, store: Store) -> None:
    commit_a_past(store)
    store.commit(DROPS)
    for one in (store, open_store()):
        assert (one.list_agents(), one.list_devices()) == ([], [])
        assert (one.load().agents, one.load().devices) == ((), ())


def test_what_was_run_keeps_the_names(store: Store) -> None:
    commit_a_past(store)
    store.commit(DROPS)
    lease, attempt = store.lease_of(AttemptId(1)), store.get_attempt(AttemptId(1))
    assert lease is not None
    assert attempt is not None
    assert (lease.device, lease.agent, attempt.device, attempt.agent) == ("pixel", "host", "pixel", "host")


def test_row_of_a_device_goes_with_the_last_lease_that_names_it(store: Store, url: str) -> None:
    commit_a_past(store)
    assert rows_of_devices(url) == ["idle", "pixel"]
    store.commit(DROPS)
    assert rows_of_devices(url) == ["pixel"]
    forget_older_than(store, 20)
    assert rows_of_devices(url) == []


def test_device_that_is_known_outlives_its_leases(store: Store, url: str) -> None:
    commit_a_past(store)
    forget_older_than(store, 20)
    assert rows_of_devices(url) == ["idle", "pixel"]


def test_device_that_comes_back_is_known_again(store: Store) -> None:
    commit_a_past(store)
    store.commit(DROPS)
    store.commit([PutAgent(an_agent()), PutDevice(a_device())])
    assert (store.list_agents(), store.list_devices()) == ([an_agent()], [a_device()])


def test_device_that_comes_back_in_the_commit_that_forgets_it_is_known(store: Store) -> None:
    commit_a_past(store)
    store.commit([*DROPS, PutAgent(an_agent()), PutDevice(a_device())])
    assert (store.list_agents(), store.list_devices()) == ([an_agent()], [a_device()])


def test_device_may_come_work_and_be_forgotten_in_one_commit(store: Store) -> None:
    ended = an_attempt(outcome=AttemptOutcome.PASSED)
    job = a_job(state=JobState.COMPLETED)
    store.commit(
        [
            PutAgent(an_agent()),
            PutDevice(a_device()),
            PutLease(a_lease(state=LeaseState.RELEASED)),
            PutJob(job),
            PutAttempt(ended),
            DropDevice(DeviceId("pixel")),
            DropAgent(AgentId("host")),
        ]
    )
    assert (store.list_agents(), store.list_devices()) == ([], [])
    assert store.get_job(JobId(1)) == job


def test_history_still_tells_what_kind_of_device_ran_the_jobs(store: Store, url: str) -> None:
    lab = recorded(store)
    lab.handle(AgentDisconnected(session=SessionId(1), is_goodbye=True))
    lab.handle(AgentForgetRequested(agent=AgentId("lab")))
    assert store.list_devices() == []
    history = read_history(url, 0)
    assert len(history.runs) == 4
    assert history.devices == {"e1@lab": DeviceKind.EMULATOR}
