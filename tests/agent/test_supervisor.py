"""Nothing outlives its agent: the supervisor on real processes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import supervisor
from agent.devices.lock import DeviceBusy, DeviceLock
from agent.process import Supervised, capture, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")

STUBBORN = "import signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
PARENT_OF_ORPHAN = (
    "import os,sys,time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        open(sys.argv[1], 'w').write(str(os.getpid()))\n"
    "        time.sleep(600)\n"
    "    os._exit(0)\n"
    "time.sleep(600)\n"
)


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


class Output:
    def __init__(self) -> None:
        self.data = b""

    def __call__(self, data: bytes) -> None:
        self.data += data


async def run(code: str, output: Output, directory: Path, *arguments: str, locks: tuple[int, ...] = ()) -> Supervised:
    return await start(
        (sys.executable, "-c", code, *arguments),
        env={"PATH": os.environ["PATH"]},
        directory=directory,
        output=output,
        locks=locks,
    )


async def test_exit_code_and_output_come_through(tmp_path: Path) -> None:
    output = Output()
    run_ = await run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)", output, tmp_path)
    assert await run_.wait() == 3
    assert sorted(output.data.split()) == [b"err", b"out"]


async def test_killed_command_ends_with_128_and_its_signal(tmp_path: Path) -> None:
    run_ = await run("import os; os.kill(os.getpid(), 9)", Output(), tmp_path)
    assert await run_.wait() == 137


async def test_command_that_cannot_be_started_says_so(tmp_path: Path) -> None:
    output = Output()
    run_ = await start(("/no/such/program",), env={}, directory=tmp_path, output=output)
    assert await run_.wait() == 127
    assert b"cannot start /no/such/program" in output.data


async def test_command_that_ignores_term_is_killed_after_the_grace(tmp_path: Path) -> None:
    output = Output()
    run_ = await run(STUBBORN, output, tmp_path)
    await until(lambda: b"up" in output.data, "the command is up")
    begun = time.monotonic()
    await run_.stop(0.3)
    assert await run_.wait() == 128 + signal.SIGKILL
    assert time.monotonic() - begun >= 0.3


async def test_command_that_listens_to_term_ends_within_the_grace(tmp_path: Path) -> None:
    output = Output()
    run_ = await run("import time; print('up', flush=True); time.sleep(600)", output, tmp_path)
    await until(lambda: b"up" in output.data, "the command is up")
    await run_.stop(30)
    assert await run_.wait() == 128 + signal.SIGTERM


async def test_orphan_that_left_the_group_is_ended_as_well(tmp_path: Path) -> None:
    mark = tmp_path / "orphan"
    run_ = await run(PARENT_OF_ORPHAN, Output(), tmp_path, str(mark))
    await until(lambda: mark.exists() and bool(mark.read_text()), "the orphan is up")
    orphan = int(mark.read_text())
    await run_.stop(0.2)
    await run_.wait()
    assert not lives(orphan)


async def test_lock_is_held_until_nothing_is_left_even_when_the_agent_is_killed(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    agent = (
        "import asyncio,os,sys\n"
        "from pathlib import Path\n"
        "from agent.devices.lock import DeviceLock\n"
        "from agent.journal import Claim, Journal\n"
        "from agent.process import start\n"
        "async def main():\n"
        "    lock = DeviceLock('phone', Path(sys.argv[1])); lock.acquire()\n"
        '    code = "import os,signal,sys,time; signal.signal(signal.SIGTERM, signal.SIG_IGN);'
        "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)\"\n"
        "    await start((sys.executable, '-c', code, sys.argv[2]), env={}, directory=Path('/'),"
        " output=lambda data: None, claim=Claim('phone', lock.descriptor, Journal(Path(sys.argv[1]))))\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", agent, str(tmp_path), str(mark)], cwd=root, start_new_session=True
    ) as process:
        await until(lambda: mark.exists() and bool(mark.read_text()), "the test runs")
        child = int(mark.read_text())
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        lock = DeviceLock("phone", tmp_path)
        with pytest.raises(DeviceBusy):
            lock.acquire()
        os.kill(child, signal.SIGKILL)  # what the supervisor does after its grace, only sooner

        def is_free() -> bool:
            try:
                lock.acquire()
            except DeviceBusy:
                return False
            return True

        await until(is_free, "the lock is given back")
        assert not lives(child)
        lock.release()


async def test_command_never_gets_the_lock(tmp_path: Path) -> None:
    lock = DeviceLock("phone", tmp_path)
    lock.acquire()
    output = Output()
    code = (
        "import os; print(sorted(os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') if fd > '2'))"
    )
    run_ = await run(
        code.replace("if fd > '2'", "if os.path.exists(f'/proc/self/fd/{fd}')"),
        output,
        tmp_path,
        locks=(lock.descriptor,),
    )
    await run_.wait()
    assert b".lock" not in output.data
    fcntl.flock(lock.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.release()


async def test_output_that_cannot_be_taken_in_does_not_hold_the_command(tmp_path: Path) -> None:
    def full(_data: bytes) -> None:
        raise OSError(28, "No space left on device")

    code = "import sys; sys.stdout.write('x' * 1_000_000)"
    run_ = await start((sys.executable, "-c", code), env={}, directory=tmp_path, output=full)
    with pytest.raises(OSError, match="No space left"):
        await asyncio.wait_for(run_.wait(), 60)
    assert not run_.is_running


async def test_cancelled_short_command_is_killed(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = "import os,sys,time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    task = asyncio.create_task(capture((sys.executable, "-c", code, str(mark)), timeout_s=60))
    await until(lambda: mark.exists() and bool(mark.read_text()), "the command is up")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not lives(int(mark.read_text()))


def test_child_that_became_another_users_does_not_keep_the_others_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    signalled = []

    def kill(pid: int, _number: int) -> None:
        if pid == 1:
            raise PermissionError(1, "Operation not permitted")
        signalled.append(pid)

    def kill_group(group: int, _number: int) -> None:
        raise ProcessLookupError(3, f"No such process group: {group}")

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(os, "killpg", kill_group)
    monkeypatch.setattr(supervisor, "children", lambda: [1, 2])
    supervisor.signal_all(7, signal.SIGKILL)
    assert signalled == [2]


def test_group_of_another_user_is_still_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill_group(_group: int, _number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "killpg", kill_group)
    monkeypatch.setattr(supervisor, "children", list)
    with subprocess.Popen([sys.executable, "-c", ""]) as leader:
        leader.wait(20)
        assert supervisor.is_anything_left(leader)
