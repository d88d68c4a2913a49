"""What an agent has started is known to its next life: real processes, killed in every order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from agent.blobs import BlobCache
from agent.core.model import AgentId, DeviceFacts, DeviceId, DeviceKind
from agent.devices import bench
from agent.devices.bench import BEING_ENDED, CANNOT_BE_ENDED, Bench
from agent.devices.emulators import emulator_devices
from agent.devices.lock import DeviceBusy, DeviceLock, lock_name
from agent.disk import replace_file
from agent.journal import MARK, Claim, Entry, Journal
from agent.process import start
from agent.runners.simulated import SimulatedRunner
from tests.agent.test_supervisor import Output, lives, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are told apart by /proc")

PHONE = "phone"
FACTS = DeviceFacts(id=DeviceId(PHONE), kind=DeviceKind.DEVICE)
SLEEP = "import time; time.sleep(600)"
TREE = (
    "import os, signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "gone = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    "path = sys.argv[1]\n"
    "open(path + '.new', 'w').write(f'{os.getpid()} {child.pid} {gone.pid}')\n"
    "os.replace(path + '.new', path)\n"
    "time.sleep(600)\n"
)
"""A command with a child in its group and one in a session of its own; none of them listens to TERM or ends."""
AGENT = (
    "import asyncio, os, sys\n"
    "from pathlib import Path\n"
    "from agent.devices.lock import DeviceLock\n"
    "from agent.journal import Claim, Journal\n"
    "from agent.process import start\n"
    "async def main():\n"
    "    lock = DeviceLock('phone'); lock.acquire()\n"
    "    claim = Claim('phone', lock.descriptor, Journal(Path(sys.argv[1])))\n"
    "    await start((sys.executable, '-c', sys.argv[2], sys.argv[3]), env={}, directory=Path('/'),\n"
    "        output=lambda data: None, claim=claim, what='attempt 7')\n"
    "    await asyncio.sleep(600)\n"
    "asyncio.run(main())\n"
)
"""An agent that has one command running on its phone."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "processes"


@pytest.fixture
def journal(folder: Path) -> Journal:
    return Journal(folder)


@contextmanager
def claimed(journal: Journal) -> Iterator[Claim]:
    lock = DeviceLock(PHONE)
    lock.acquire()
    yield Claim(PHONE, lock.descriptor, journal)
    lock.release()


def bench_of(journal: Journal, folder: Path, called: Callable[[DeviceFacts], str] = lambda facts: facts.id) -> Bench:
    def make(facts: DeviceFacts, _slot: int, _claim: Claim) -> SimulatedRunner:
        blobs = BlobCache(folder.parent / "builds", ".apk", 1_000)
        return SimulatedRunner(
            facts.id,
            blobs=blobs,
            install_s=0,
            test_s=0,
            truth=folder.parent / "truth",
            left_behind=folder.parent / "left",
        )

    return Bench(make, called, journal)


async def offered(lab: Bench) -> None:
    deadline = asyncio.get_running_loop().time() + 20
    while not (await lab.claimed(FACTS)).usable:
        assert asyncio.get_running_loop().time() < deadline, "the device is offered"


async def tree(mark: Path) -> list[int]:
    await until(mark.exists, "the command and its children are up")
    return [int(pid) for pid in mark.read_text().split()]


@contextmanager
def agent_at_work(folder: Path, mark: Path) -> Iterator[subprocess.Popen[bytes]]:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", AGENT, str(folder), TREE, str(mark)]
    with subprocess.Popen(command, cwd=root, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_command_finds_itself_in_the_journal_when_it_starts(journal: Journal, folder: Path) -> None:
    output = Output()
    code = "import pathlib, sys; [print(path.read_text()) for path in pathlib.Path(sys.argv[1]).glob('*.json')]"
    with claimed(journal) as claim:
        command = (sys.executable, "-c", code, str(folder))
        run = await start(command, env={}, directory=folder, output=output, claim=claim, what="attempt 7")
        supervisor = run.supervisor_pid
        assert await run.wait() == 0
    noted = json.loads(output.data)
    assert (noted["device"], noted["what"], noted["supervisor"]) == (PHONE, "attempt 7", supervisor)
    assert noted["start"] > 0
    assert journal.entries(PHONE) == []


async def test_command_that_cannot_be_written_down_never_starts(
    journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisors: list[int] = []

    def full(supervisor: int, *_rest: str) -> Entry:
        supervisors.append(supervisor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "note", full)
    ran = folder / "ran"
    command = (sys.executable, "-c", "import sys; open(sys.argv[1], 'w')", str(ran))
    with claimed(journal) as claim, pytest.raises(OSError, match="No space left"):
        await start(command, env={}, directory=folder, output=Output(), claim=claim)
    await until(lambda: not lives(supervisors[0]), "its supervisor ends")
    assert not ran.exists()


async def test_command_that_is_given_up_while_it_is_written_down_is_forgotten(
    journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_noting, may_note = threading.Event(), threading.Event()
    note = journal.note

    def note_late(supervisor: int, mark: str, device: str, what: str) -> Entry:
        is_noting.set()
        assert may_note.wait(20)
        return note(supervisor, mark, device, what)

    monkeypatch.setattr(journal, "note", note_late)
    with claimed(journal) as claim:
        starting = asyncio.create_task(
            start((sys.executable, "-c", ""), env={}, directory=folder, output=Output(), claim=claim)
        )
        await until(is_noting.is_set, "it is being written down")
        starting.cancel()
        await asyncio.sleep(0)
        may_note.set()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert journal.entries(PHONE) == []


async def test_agent_that_dies_before_it_has_written_the_command_down_has_started_nothing(folder: Path) -> None:
    folder.mkdir()
    ran, at_gate = folder / "ran", folder / "at-gate"
    agent = AGENT.replace(
        "async def main",
        "def note(self, supervisor, *rest):\n"
        "    Path(sys.argv[3]).write_text(str(supervisor)); os.kill(os.getpid(), 9)\n"
        "Journal.note = note\n"
        "async def main",
    )
    code = f"open({str(ran)!r}, 'w')"
    root = str(Path(__file__).parents[2])
    with subprocess.Popen([sys.executable, "-c", agent, str(folder), code, str(at_gate)], cwd=root) as process:
        assert process.wait(20) == -signal.SIGKILL
    supervisor = int(at_gate.read_text())
    await until(lambda: not lives(supervisor), "its supervisor ends")
    assert not ran.exists()


async def test_killed_supervisor_leaves_nothing_to_a_living_agent(journal: Journal, folder: Path) -> None:
    mark = folder / "pids"
    with claimed(journal) as claim:
        command = (sys.executable, "-c", TREE, str(mark))
        run = await start(command, env={}, directory=folder, output=Output(), claim=claim)
        pids = await tree(mark)
        os.kill(run.supervisor_pid, signal.SIGKILL)
        assert await asyncio.wait_for(run.wait(), 60) == 128 + signal.SIGKILL
    assert [pid for pid in pids if lives(pid)] == []
    assert journal.entries(PHONE) == []


async def test_supervisor_that_hangs_is_killed_after_the_grace_with_all_it_guards(
    journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.process.KILL_MARGIN_S", 0.1)
    mark = folder / "pids"
    with claimed(journal) as claim:
        command = (sys.executable, "-c", TREE, str(mark))
        run = await start(command, env={}, directory=folder, output=Output(), claim=claim)
        pids = await tree(mark)
        os.kill(run.supervisor_pid, signal.SIGSTOP)
        await asyncio.wait_for(run.stop(0), 60)
        assert await run.wait() == 128 + signal.SIGKILL
    assert [pid for pid in pids if lives(pid)] == []


async def test_next_life_ends_what_agent_and_supervisor_left_before_it_offers_the_device(folder: Path) -> None:
    mark = folder.parent / "pids"
    with agent_at_work(folder, mark) as agent:
        pids = await tree(mark)
        journal = Journal(folder)
        (entry,) = journal.entries(PHONE)
        os.kill(entry.supervisor, signal.SIGSTOP)  # it shall not see its agent die
        agent.kill()
        agent.wait(10)
        os.kill(entry.supervisor, signal.SIGKILL)
    await until(lambda: not lives(entry.supervisor), "the supervisor is dead")
    assert any(lives(pid) for pid in pids), "nothing was left: this run proves nothing"
    lab = bench_of(journal, folder)
    first = await lab.claimed(FACTS)
    assert (first.usable, first.reason) == (False, BEING_ENDED)
    await offered(lab)
    assert [pid for pid in pids if lives(pid)] == []
    assert journal.entries(PHONE) == []
    await lab.close()


async def test_supervisor_of_an_earlier_life_that_hangs_is_killed_when_it_is_overdue(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = folder.parent / "pids"
    with agent_at_work(folder, mark) as agent:
        pids = await tree(mark)
        journal = Journal(folder)
        (entry,) = journal.entries(PHONE)
        os.kill(entry.supervisor, signal.SIGSTOP)
        agent.kill()
        agent.wait(10)
    lab = bench_of(journal, folder)
    first = await lab.claimed(FACTS)
    assert (first.usable, first.reason) == (False, BEING_ENDED)
    assert lives(entry.supervisor), "it has its time"
    monkeypatch.setattr(bench, "OVERDUE_S", 0.0)
    await offered(lab)
    assert [pid for pid in (entry.supervisor, *pids) if lives(pid)] == []
    await lab.close()


async def test_device_of_another_agent_is_not_said_to_be_our_own(journal: Journal, folder: Path) -> None:
    with claimed(journal):
        facts = await bench_of(journal, folder).claimed(FACTS)
    assert (facts.usable, facts.reason) == (
        False,
        f"{PHONE} is used by another agent on this host; stop that one first",
    )


@contextmanager
def bystander(**env: str) -> Iterator[int]:
    """A process of somebody else's that leads a session, as a supervisor does."""
    with subprocess.Popen([sys.executable, "-c", SLEEP], env=env, start_new_session=True) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@contextmanager
def misnamed() -> Iterator[int]:
    """A process of somebody else's whose name was cut in the middle of a letter."""
    code = (
        "import ctypes, time; ctypes.CDLL(None).prctl(15, b'a' * 14 + b'\\xc3', 0, 0, 0);"
        "print('named', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"named\n"
            yield process.pid
        finally:
            process.kill()


async def test_name_that_is_no_text_disturbs_no_run_and_no_start(journal: Journal, folder: Path) -> None:
    with bystander() as dead:
        pass
    with misnamed():
        with claimed(journal) as claim:
            run = await start((sys.executable, "-c", ""), env={}, directory=folder, output=Output(), claim=claim)
            assert await run.wait() == 0
        journal.note(dead, "0" * 32, PHONE, "attempt 7")
        assert (await bench_of(journal, folder).claimed(FACTS)).usable


async def test_what_cannot_be_looked_at_is_not_said_to_have_ended(
    journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_entry: Entry) -> list[object]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("agent.journal._members", fail)
    monkeypatch.setattr("agent.journal.PATIENCE_S", 0.0)
    with claimed(journal) as claim:
        run = await start((sys.executable, "-c", ""), env={}, directory=folder, output=Output(), claim=claim)
        assert await run.wait() == 0
    assert not journal.end_left(PHONE)
    assert len(journal.entries(PHONE)) == 1


Change = Callable[[Entry], Entry]


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: replace(entry, start=entry.start - 1),
        lambda entry: replace(entry, start=entry.start + 1),
        lambda entry: replace(entry, boot="another start of this host"),
    ],
    ids=["an earlier holder of the number", "a later one", "before the host was started"],
)
def test_process_that_merely_has_the_number_is_left_alone(journal: Journal, folder: Path, change: Change) -> None:
    with bystander() as pid:
        entry = change(journal.note(pid, "0" * 32, PHONE, "attempt 7"))
        replace_file(folder / f"{entry.mark}.json", asdict(entry))
        journal.kill_supervisors(PHONE)
        assert journal.end_left(PHONE)
        assert lives(pid)
    assert journal.entries(PHONE) == []


@contextmanager
def orphan(**env: str) -> Iterator[tuple[int, int]]:
    """A process whose session has lost its leader: the session's number, and its own."""
    command = ["sh", "-c", "sleep 600 > /dev/null & echo $!"]
    with subprocess.Popen(command, env=env, start_new_session=True, stdout=subprocess.PIPE) as leader:
        assert leader.stdout is not None
        pid = int(leader.stdout.readline())
        leader.wait(20)
        try:
            yield leader.pid, pid
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("mark", ["a" * 32, "b" * 32], ids=["ours", "a stranger's"])
async def test_process_of_a_session_without_its_leader_has_to_bear_the_mark(journal: Journal, mark: str) -> None:
    with orphan(PATH=os.environ["PATH"], **{MARK: mark}) as (session, pid):
        journal.note(session, "a" * 32, PHONE, "attempt 7")
        is_ours = mark == "a" * 32
        assert journal.end_left(PHONE) is not is_ours
        if is_ours:
            await until(lambda: not lives(pid), "it is ended")
        else:
            assert lives(pid)


async def test_process_that_may_not_be_killed_is_left_and_the_others_are_ended(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = signal.pidfd_send_signal
    refused: list[int] = []

    def refuse_first(handle: int, number: int) -> None:
        if not refused:
            refused.append(handle)
            raise PermissionError(1, "Operation not permitted")
        send(handle, number)

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse_first)
    with bystander() as supervisor:
        journal.note(supervisor, "a" * 32, PHONE, "attempt 7")
    with bystander(**{MARK: "a" * 32}) as first, bystander(**{MARK: "a" * 32}) as second:
        assert not journal.end_left(PHONE)
        await until(lambda: lives(first) is not lives(second), "one of them is ended")
        assert len(journal.entries(PHONE)) == 1


async def test_process_is_known_by_its_mark_alone(journal: Journal) -> None:
    with bystander() as supervisor:
        journal.note(supervisor, "a" * 32, PHONE, "attempt 7")
    with bystander(**{MARK: "a" * 32}) as ours, bystander(**{MARK: "b" * 32}) as foreign:
        assert not journal.end_left(PHONE)
        await until(lambda: not lives(ours), "what bears the mark is ended")
        assert lives(foreign)
        assert journal.end_left(PHONE)


async def test_lock_is_not_kept_while_something_is_left(journal: Journal, folder: Path) -> None:
    lock = DeviceLock(PHONE)
    with bystander() as pid:
        journal.note(pid, "0" * 32, PHONE, "attempt 7")
        assert not (await bench_of(journal, folder).claimed(FACTS)).usable
        try:
            lock.acquire()
        except DeviceBusy:
            pytest.fail("the lock of a device that is not offered is held")
        lock.release()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"mark": "a"}'], ids=["empty", "torn", "a list", "null", "too little"]
)
async def test_entry_that_cannot_be_read_is_put_aside(journal: Journal, folder: Path, text: str) -> None:
    (folder / "torn.json").write_text(text)
    assert (await bench_of(journal, folder).claimed(FACTS)).usable
    assert (folder / "torn.broken").read_text() == text
    assert not (folder / "torn.json").exists()


def test_entry_of_a_newer_release_is_read(journal: Journal, folder: Path) -> None:
    with bystander() as pid:
        entry = journal.note(pid, "a" * 32, PHONE, "attempt 7")
    replace_file(folder / f"{entry.mark}.json", {**asdict(entry), "colour": "green"})
    assert journal.entries(PHONE) == [entry]


def test_entry_that_is_forgotten_while_the_journal_is_read_is_not_missed(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bystander() as pid:
        gone = journal.note(pid, "a" * 32, PHONE, "attempt 7")
        stays = journal.note(pid, "b" * 32, PHONE, "Appium")
    read = Path.read_bytes

    def read_late(path: Path) -> bytes:
        journal.forget(gone)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_late)
    assert journal.entries(PHONE) == [stays]


async def test_device_is_not_usable_while_something_lives_on_it_that_cannot_be_ended(
    journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims: list[Claim] = []

    def make(facts: DeviceFacts, _slot: int, claim: Claim) -> SimulatedRunner:
        claims.append(claim)
        blobs = BlobCache(folder.parent / "builds", ".apk", 1_000)
        return SimulatedRunner(
            facts.id,
            blobs=blobs,
            install_s=0,
            test_s=0,
            truth=folder.parent / "truth",
            left_behind=folder.parent / "left",
        )

    lab = Bench(make, lambda facts: facts.id, journal)
    assert (await lab.claimed(FACTS)).usable
    monkeypatch.setattr("agent.journal.PATIENCE_S", 0.0)
    with monkeypatch.context() as immortal:
        immortal.setattr(signal, "pidfd_send_signal", lambda _handle, _number: None)
        run = await start((sys.executable, "-c", SLEEP), env={}, directory=folder, output=Output(), claim=claims[0])
        os.kill(run.supervisor_pid, signal.SIGSTOP)  # it shall not end its command
        with bystander(**{MARK: journal.entries(PHONE)[0].mark}) as left:
            os.kill(run.supervisor_pid, signal.SIGKILL)
            assert await run.wait() == 128 + signal.SIGKILL
            assert lives(left)
            facts = await lab.claimed(FACTS)
            assert (facts.usable, facts.reason) == (False, CANNOT_BE_ENDED)
            with pytest.raises(DeviceBusy):
                DeviceLock(PHONE).acquire()
    with bystander() as other:
        running = journal.note(other, "c" * 32, PHONE, "what runs now")
        assert (await lab.claimed(FACTS)).usable
        assert lives(other)
        journal.forget(running)
    await lab.close()


async def test_what_is_left_on_a_device_that_does_not_come_back_is_ended_at_the_start(
    journal: Journal, folder: Path
) -> None:
    with bystander() as supervisor:
        journal.note(supervisor, "a" * 32, "another phone", "attempt 7")
    with bystander(**{MARK: "a" * 32}) as left:
        bench_of(journal, folder).end_left()
        await until(lambda: not lives(left), "it is ended")
    lock = DeviceLock("another phone")
    lock.acquire()
    lock.release()


def test_what_still_has_its_lock_is_left_alone_at_the_start(journal: Journal, folder: Path) -> None:
    with claimed(journal), bystander() as pid:
        journal.note(pid, "a" * 32, PHONE, "attempt 7")
        bench_of(journal, folder).end_left()
        assert lives(pid)


def test_what_an_earlier_start_of_the_host_left_is_dropped_at_the_start(journal: Journal, folder: Path) -> None:
    with bystander() as pid:
        entry = replace(journal.note(pid, "a" * 32, PHONE, "attempt 7"), boot="another start of this host")
        replace_file(folder / f"{entry.mark}.json", asdict(entry))
        (folder / "half.new").write_text("{")
        with claimed(journal):
            bench_of(journal, folder).end_left()
        assert lives(pid)
    assert list(folder.iterdir()) == []


async def test_stale_entry_does_not_say_of_another_agents_device_that_it_is_being_stopped(
    journal: Journal, folder: Path
) -> None:
    with bystander() as pid:
        journal.note(pid, "a" * 32, PHONE, "attempt 7")
    with claimed(journal):
        facts = await bench_of(journal, folder).claimed(FACTS)
    assert "used by another agent" in facts.reason


async def test_emulator_of_an_agent_is_offered_when_nothing_runs_on_it_at_the_port_of_an_earlier_life(
    journal: Journal, folder: Path
) -> None:
    ((before,), (now,)) = (emulator_devices((("Pixel_8", 1),), AgentId("lab"), (port,)) for port in (5640, 5642))
    assert (before.id, before.udid != now.udid) == (now.id, True)
    own = {now.id}
    lab = bench_of(journal, folder, lambda facts: lock_name(facts, own))
    name = lock_name(before, own)
    lock = DeviceLock(name)
    lock.acquire()
    with bystander() as supervisor:
        left = journal.note(supervisor, "a" * 32, name, "attempt 7")
        facts = await lab.claimed(now)
        assert (facts.usable, facts.reason) == (False, BEING_ENDED)
        journal.forget(left)
    lock.release()
    assert (await lab.claimed(now)).usable
    await lab.close()


def test_emulator_that_several_agents_can_see_has_one_lock_and_the_simulated_ones_of_each_their_own() -> None:
    seen = [
        DeviceFacts(id=DeviceId(f"emulator-5554@{agent}"), kind=DeviceKind.EMULATOR, udid="emulator-5554")
        for agent in ("one", "two")
    ]
    assert {lock_name(facts, ()) for facts in seen} == {"emulator-5554"}
    assert {lock_name(facts, {facts.id}) for facts in seen} == {facts.id for facts in seen}
    assert lock_name(FACTS, ()) == PHONE
