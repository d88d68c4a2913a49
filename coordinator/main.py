"""The program `qgjob-coordinator`: parse, set up diagnostics, run. What it runs is loaded when it is run."""

from __future__ import annotations

import functools
import os
import sys
import time
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from coordinator.config import (
    Config,
    ConfigError,
    TlsFiles,
    checked_listen,
    checked_tls,
    parsed_retention,
    parsed_shares,
    sqlite_in,
)
from coordinator.core.model import MAX_PRIORITY, SECOND_US, Rules, Settings
from qgjob.parameters import PlainCommand
from qgjob.program import print_release, run_program
from qgjob.sizes import parse_size

LONGEST_SPAN_S = 86_400
HTTP_DEFAULT = "127.0.0.1:8002"
NO_HTTP = "off"
MOST_DEVICES = 100_000
MOST_WEIGHT = 10_000

app = typer.Typer(
    name="qgjob-coordinator",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print_release("qgjob-coordinator")


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Show the release.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """The coordinator of a qgjob device lab: owns the queue, hands batches to agents, keeps results and logs."""


@app.command(cls=PlainCommand)
def serve(
    listen: Annotated[str, typer.Option(help="HOST:PORT for gRPC; port 0 picks a free one.")] = "127.0.0.1:50051",
    http: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT for HTTP, or off. Default: 127.0.0.1:8002, or a free port where --listen asks for one.",
            show_default=False,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Database and logs. Default: the user's data directory.", show_default=False)
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(help="SQLAlchemy URL; default: SQLite in the data directory.", show_default=False),
    ] = None,
    heartbeat: Annotated[float, typer.Option(help="Seconds between the heartbeats of an agent.", min=0.05)] = 5.0,
    lease_ttl: Annotated[float, typer.Option(help="Seconds that a lease lives without one.", min=0.2)] = 30.0,
    orphan_limit: Annotated[float, typer.Option(help="Seconds that a cut-off agent goes on.", min=1)] = 600.0,
    signal_grace: Annotated[float, typer.Option(help="Seconds between TERM and KILL.", min=0)] = 10.0,
    preempt_grace: Annotated[float, typer.Option(help="Seconds for a preempted test to end.", min=0)] = 60.0,
    canary_wait: Annotated[
        float, typer.Option(help="Seconds until a device at fault is tried again; doubles each time.", min=0)
    ] = 5.0,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM, with its chain) of both ports.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM, without a password).")] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(help="CA of clients and agents, who must show a certificate of it then.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="Who may connect: lines of NAME ROLES TOKEN; roles are client and agent.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Where logs go: s3://BUCKET/PREFIX, with AWS_* in the environment. Default: the data directory.",
            show_default=False,
        ),
    ] = None,
    min_free: Annotated[
        str, typer.Option(help="Space on disk, as in 512MiB, below which new jobs and new logs are refused.")
    ] = "512MiB",
    max_upload: Annotated[str, typer.Option(help="Size of the largest build that is taken in.")] = "4GiB",
    retain: Annotated[
        str, typer.Option(help="How long ended jobs are kept with their tests and logs, as in 30d; or forever.")
    ] = "30d",
    retain_size: Annotated[
        str | None,
        typer.Option(
            help="Size of all logs, as in 20GiB, above which the oldest go. Default: any.", show_default=False
        ),
    ] = None,
    retain_artifacts: Annotated[
        str, typer.Option(help="How long artifacts are kept, as in 7d; or forever: as long as their job.")
    ] = "14d",
    retain_artifacts_size: Annotated[
        str | None,
        typer.Option(
            help="Size of all artifacts, as in 100GiB, above which the oldest go. Default: any.", show_default=False
        ),
    ] = None,
    leader_ttl: Annotated[
        float,
        typer.Option(
            help="On PostgreSQL, where several coordinators may run and one leads: seconds without a sign of life "
            "from it after which another takes over.",
            min=0.5,
        ),
    ] = 10.0,
    quota: Annotated[
        list[str] | None,
        typer.Option(help="ORG=N: devices that an organisation may have at once; repeatable.", show_default=False),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(help="ORG=N: its share in hundredths of the usual (100); repeatable.", show_default=False),
    ] = None,
    spill: Annotated[
        list[str] | None,
        typer.Option(
            help="ORG=PRIORITY: its jobs of target any with at least this priority may use slots of a cloud while "
            "the lab is full; repeatable.",
            show_default=False,
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow to listen beyond loopback without TLS or tokens.")
    ] = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    import uvloop

    from coordinator.store import StoreError, StoreInUse
    from qgjob.diagnostics import set_up_diagnostics

    set_up_diagnostics()
    try:
        config = _config(
            listen=listen,
            http=http,
            data_dir=data_dir,
            database_url=database_url,
            settings=replace(
                _settings(heartbeat, lease_ttl, orphan_limit, signal_grace, preempt_grace),
                canary_wait_us=int(_checked_span("--canary-wait", canary_wait) * SECOND_US),
                rules=Rules(
                    quotas=parsed_shares("--quota", quota or [], MOST_DEVICES),
                    weights=parsed_shares("--weight", weight or [], MOST_WEIGHT),
                    spill=parsed_shares("--spill", spill or [], MAX_PRIORITY),
                ),
            ),
            is_insecure=insecure,
            tls=checked_tls(tls_cert, tls_key, tls_ca),
            token_file=token_file,
            storage=storage,
            min_free=parsed_size("--min-free", min_free),
            max_upload=parsed_size("--max-upload", max_upload),
            retain_us=parsed_retention("--retain", retain),
            retain_bytes=parsed_size("--retain-size", retain_size) if retain_size is not None else None,
            retain_artifacts_us=parsed_retention("--retain-artifacts", retain_artifacts),
            retain_artifact_bytes=(
                parsed_size("--retain-artifacts-size", retain_artifacts_size)
                if retain_artifacts_size is not None
                else None
            ),
            leader_ttl_s=_checked_span("--leader-ttl", leader_ttl),
        )
        from coordinator import process

        process.raise_file_limit()
        sys.exit(uvloop.run(process.serve(config)))
    except ConfigError as error:
        _die(str(error), error.hint)
    except StoreInUse as error:
        _die(str(error), "stop that one first, or give this one a --data-dir of its own")
    except StoreError as error:
        _die(str(error), _store_hint(database_url))


@app.command(cls=PlainCommand)
def restored(
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the backup was put. Default: the user's data directory.")
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(help="SQLAlchemy URL; default: SQLite in the data directory.", show_default=False),
    ] = None,
) -> None:
    """Say that a backup was put back.

    Do so before the coordinator starts on it. Agents then end what they hold of the time after the backup, and do not
    mix it up with what comes now.
    """
    from coordinator.restored import begin_anew
    from coordinator.store import StoreError, StoreInUse

    try:
        begin_anew(_data_dir(data_dir), _named_database(database_url))
    except ConfigError as error:
        _die(str(error), error.hint)
    except StoreInUse as error:
        _die(str(error), "stop it, put the backup back, and say this before it is started again")
    except StoreError as error:
        _die(str(error), _store_hint(database_url))
    print("the database has a new name; start the coordinator, agents begin anew with it", file=sys.stderr)  # noqa: T201


@app.command(cls=PlainCommand)
def replay(
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="qgjob, fifo, fixed-batches, greedy-sticky or longest-first; repeatable. Default: all.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str, typer.Option(help="How much of the past, as in 12h or 7d, or forever.", show_default=True)
    ] = "forever",
    data_dir: Annotated[
        Path | None, typer.Option(help="Database. Default: the user's data directory.", show_default=False)
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(help="SQLAlchemy URL; default: SQLite in the data directory.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run what this lab has done once more, in virtual time, under one or more policies.

    The database is only read; a coordinator may work on it meanwhile.
    """
    from coordinator.replay import POLICIES, NoHistory, as_json, as_lines
    from coordinator.replay import replay as run_again
    from coordinator.store import StoreError

    try:
        policies = _checked_policies(policy or list(POLICIES), list(POLICIES))
        span_us = parsed_retention("--since", since)
        since_us = time.time_ns() // 1_000 - span_us if span_us is not None else 0
        url = _named_database(database_url) or sqlite_in(_data_dir(data_dir))
        report = run_again(url, policies, since_us, lambda line: print(line, file=sys.stderr))  # noqa: T201
        for line in [dumps(as_json(report))] if json else as_lines(report):
            print(line)  # noqa: T201 - the result
    except NoHistory as error:
        _die(str(error), "run some jobs first, or look further back with --since")
    except ConfigError as error:
        _die(str(error), error.hint)
    except StoreError as error:
        _die(str(error), "name the database with --data-dir or --database-url")


def _checked_policies(names: list[str], known: list[str]) -> list[str]:
    for name in names:
        if name not in known:
            raise ConfigError(f"--policy {name} is unknown", f"use {', '.join(known)}")
    return names


def parsed_size(flag: str, text: str) -> int:
    """Return a size in bytes.

    Raises:
        ConfigError: It is none.
    """
    try:
        return parse_size(text)
    except ValueError as error:
        raise ConfigError(
            f"{flag} {text} is not a size", "use for example 512MiB, 20GB, or a number of bytes"
        ) from error


def _store_hint(database_url: str | None) -> str:
    if _named_database(database_url):
        return "check --database-url, QGJOB_DATABASE_URL or DATABASE_URL: does it name a database that answers?"
    return "look at the data directory: is it writable, is there space, is it another release's?"


def _named_database(database_url: str | None) -> str | None:
    return database_url or os.environ.get("QGJOB_DATABASE_URL") or os.environ.get("DATABASE_URL")


def _settings(heartbeat: float, lease_ttl: float, orphan_limit: float, signal_grace: float, preempt: float) -> Settings:
    for flag, seconds in (
        ("--heartbeat", heartbeat),
        ("--lease-ttl", lease_ttl),
        ("--orphan-limit", orphan_limit),
        ("--signal-grace", signal_grace),
        ("--preempt-grace", preempt),
    ):
        _checked_span(flag, seconds)
    # An agent takes a coordinator that was silent for half a lease for dead, so an answer must come sooner than that.
    if lease_ttl < 3 * heartbeat:
        raise ConfigError(
            f"--lease-ttl {lease_ttl:g} is shorter than three heartbeats of {heartbeat:g} s",
            "give a lease several heartbeats to live",
        )
    return Settings(
        heartbeat_us=int(heartbeat * SECOND_US),
        lease_ttl_us=int(lease_ttl * SECOND_US),
        orphan_limit_us=int(orphan_limit * SECOND_US),
        signal_grace_us=int(signal_grace * SECOND_US),
        preempt_grace_us=int(preempt * SECOND_US),
    )


def _data_dir(chosen: Path | None) -> Path:
    from platformdirs import user_data_path

    return chosen or user_data_path("qgjob-coordinator")


def _checked_span(flag: str, seconds: float) -> float:
    if not seconds <= LONGEST_SPAN_S:  # not a number is not, either
        raise ConfigError(f"{flag} {seconds:g} is out of range", "use at most a day, 86400")
    return seconds


def _config(
    *,
    listen: str,
    http: str | None,
    data_dir: Path | None,
    database_url: str | None,
    settings: Settings,
    is_insecure: bool,
    tls: TlsFiles | None,
    token_file: Path | None,
    storage: str | None,
    min_free: int,
    max_upload: int,
    retain_us: int | None,
    retain_bytes: int | None,
    retain_artifacts_us: int | None,
    retain_artifact_bytes: int | None,
    leader_ttl_s: float,
) -> Config:
    check = functools.partial(
        checked_listen, is_insecure=is_insecure, has_tls=tls is not None, has_tokens=token_file is not None
    )
    address = check(listen)
    http_address = _http_default(listen) if http is None else http
    if http_address != NO_HTTP:
        check(http_address, flag="--http", example=HTTP_DEFAULT)
    directory = _data_dir(data_dir)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"cannot make the data directory {directory}: {error.strerror}", "choose --data-dir"
        ) from error
    url = _named_database(database_url)
    return Config(
        listen=address,
        http=None if http_address == NO_HTTP else http_address,
        data_dir=directory,
        database_url=url or sqlite_in(directory),
        settings=settings,
        is_insecure=is_insecure,
        tls=tls,
        token_file=token_file,
        storage=storage,
        min_free=min_free,
        max_upload=max_upload,
        retain_us=retain_us,
        retain_bytes=retain_bytes,
        retain_artifacts_us=retain_artifacts_us,
        retain_artifact_bytes=retain_artifact_bytes,
        leader_ttl_s=leader_ttl_s,
    )


def _http_default(listen: str) -> str:
    """Return where HTTP listens if nothing is said: whoever takes any port for gRPC takes any for HTTP."""
    return "127.0.0.1:0" if listen.endswith(":0") else HTTP_DEFAULT


def _die(message: str, hint: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    if hint:
        print(f"hint: {hint}", file=sys.stderr)  # noqa: T201
    sys.exit(2)


def main() -> None:
    """Run the program."""
    # What grpc itself writes about a port that is taken says less than our own line.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    run_program(app)
