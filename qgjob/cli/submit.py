"""`qgjob submit`."""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from qgjob.cli import fields, render, terminal
from qgjob.cli.session import Json, Output, chosen_format, client, organisation, show
from qgjob.errors import Unreachable

if TYPE_CHECKING:
    from qgjob.client import Client
    from qgjob.v1.job_pb2 import JobSpec
    from qgjob.v1.job_service_pb2 import SubmitJobsResponse


def submit(
    app_version_id: Annotated[str, typer.Option("--app-version-id", help="The app version to test.")],
    test: Annotated[list[str], typer.Option("--test", help="Path of a spec file in the project; repeatable.")],
    org_id: Annotated[str | None, typer.Option("--org-id", help="The organisation; default: QGJOB_ORG_ID.")] = None,
    priority: Annotated[int, typer.Option("--priority", help="1 (when idle) to 5 (now).")] = 3,
    target: Annotated[str, typer.Option("--target", help="any, emulator, device or browserstack.")] = "any",
    selector: Annotated[
        list[str] | None, typer.Option("--selector", help="Demand on the device, as in model=Pixel*; repeatable.")
    ] = None,
    env: Annotated[list[str] | None, typer.Option("--env", help="K=V for the test; repeatable.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="K=V to find the job by; repeatable.")] = None,
    retries: Annotated[int, typer.Option("--retries", help="How often a failed test is tried again.")] = 0,
    timeout: Annotated[str, typer.Option("--timeout", help="Time limit of one attempt.")] = "10m",
    run: Annotated[str, typer.Option("--run", help="A name for the whole, to list, wait or cancel by.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; the exit code tells.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Wait, and show the log as it comes.")] = False,
    wait_timeout: Annotated[str | None, typer.Option("--wait-timeout", help="Give up waiting after this.")] = None,
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C cancels the jobs instead of detaching.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse what no known device could serve.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", help="The same key gives the same jobs back.")
    ] = None,
    output: Output = None,
    json: Json = False,
) -> None:
    """Submit tests of an app version, and wait for them if asked to."""
    from qgjob import resources
    from qgjob.cli.waiting import wait_for
    from qgjob.v1.job_pb2 import JobSpec

    chosen = chosen_format(output, json)
    wait_s = fields.span_s(wait_timeout, "wait-timeout") if wait_timeout is not None else None
    common = JobSpec(
        org_id=organisation(org_id),
        app_version_id=fields.name("app-version-id", app_version_id),
        priority=fields.priority(priority),
        target=fields.target_number(target),  # type: ignore[arg-type]
        selector=fields.labels(selector or [], "selector"),
        env=fields.environment(env or []),
        labels=fields.labels(label or []),
        retries=fields.retries(retries),
        run=fields.name("run", run, is_required=False),
    )
    common.timeout.FromMilliseconds(round(fields.time_limit_s(timeout) * 1_000))
    specs = [_with_test(common, fields.test_path(one)) for one in test]
    if idempotency_key is not None:
        fields.name("idempotency-key", idempotency_key)
    with client() as opened:
        answer = _submitted(opened, specs, idempotency_key, is_strict=strict)
        for warning in answer.warnings:
            terminal.say(f"warning: {warning}")
        ids = [job.id for job in answer.jobs]
        if answer.replayed:
            terminal.say(f"already submitted under this key: jobs {' '.join(map(str, ids))}")
        if not wait and not follow:
            show(resources.jobs(answer.jobs), chosen, render.jobs_table)
            return
        jobs, code = wait_for(opened, ids, is_following=follow, timeout_s=wait_s, is_cancelling=cancel_on_interrupt)
    if not follow:
        show(jobs, chosen, render.jobs_table)
    sys.exit(code)


def _submitted(client: Client, specs: list[JobSpec], key: str | None, *, is_strict: bool) -> SubmitJobsResponse:
    """Submit, and let nobody who interrupts it wonder whether the jobs were accepted."""
    from qgjob.client import repeat_hint

    chosen = key or uuid.uuid4().hex
    try:
        return client.submit_jobs(specs, request_id=chosen, strict=is_strict)
    except Unreachable as error:
        # Who made up a key thinks of repetitions; for others it is noise: most often there is no coordinator at all.
        if key is not None:
            error.hint = f"{error.hint}; {repeat_hint(chosen)}"
        raise
    except KeyboardInterrupt:
        terminal.say(f"interrupted before the coordinator answered; {repeat_hint(chosen)}")
        raise


def _with_test(common: JobSpec, test: str) -> JobSpec:
    from qgjob.v1.job_pb2 import JobSpec

    spec = JobSpec()
    spec.CopyFrom(common)
    spec.test = test
    return spec
