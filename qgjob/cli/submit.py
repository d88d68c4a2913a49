"""`qgjob submit`."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qgjob.cli import completion, fields, render, terminal
from qgjob.cli.builds import bring_for
from qgjob.cli.bundles import bring_bundle, packed
from qgjob.cli.session import Json, Output, chosen_format, client, is_format_asked_for, organisation, show
from qgjob.errors import Unreachable, UsageError

if TYPE_CHECKING:
    from qgjob.client import Client
    from qgjob.v1.job_pb2 import JobSpec
    from qgjob.v1.job_service_pb2 import SubmitJobsResponse


def submit(
    app_version_id: Annotated[
        str | None,
        typer.Option("--app-version-id", metavar="APP", help="The app version to test; needed here or in a manifest."),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            "--test", metavar="SPEC", help="Path of a spec file in the project, as the agent has it; repeatable."
        ),
    ] = None,
    app: Annotated[
        Path | None,
        typer.Option("--app", metavar="FILE", help="The app version's build: uploaded and registered before the jobs."),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="DIR",
            help="The AppWright project: packed, uploaded, and run instead of the agents' own.",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include",
            metavar="PATTERN",
            help="Pattern of what --bundle packs though it looks like a secret; repeatable.",
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="A manifest in TOML: specs, each with its own priority and more."),
    ] = None,
    org_id: Annotated[
        str | None, typer.Option("--org-id", metavar="ORG", help="The organisation, needed; default: QGJOB_ORG_ID.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option("--priority", metavar="1-5", help="1 (when idle) to 5 (now); default: 3.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="KIND",
            help="any (the default), emulator, device or browserstack.",
            autocompletion=completion.targets,
        ),
    ] = None,
    selector: Annotated[
        list[str] | None,
        typer.Option("--selector", metavar="K=V", help="Demand on the device, as in model=Pixel*; repeatable."),
    ] = None,
    env: Annotated[list[str] | None, typer.Option("--env", metavar="K=V", help="K=V for the test; repeatable.")] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            metavar="K[=V]",
            help="K for the test, its value from our environment (or K=V); masked in the log; repeatable.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="K=V", help="K=V to find the job by; repeatable.")
    ] = None,
    retries: Annotated[
        int | None, typer.Option("--retries", metavar="N", help="How often a failed test is tried again; default: 0.")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="SPAN", help="Time limit of one attempt; default: 10m.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="A name for the whole, to list, wait or cancel by.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; the exit code tells.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Wait, and show the log as it comes.")] = False,
    wait_timeout: Annotated[
        str | None,
        typer.Option("--wait-timeout", metavar="SPAN", help="Give up waiting after this, as in 30m; the jobs go on."),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Wait, and write a JUnit report to this file.")
    ] = None,
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C cancels the jobs instead of detaching.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse what no known device could serve.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", metavar="KEY", help="The same key gives the same jobs back.")
    ] = None,
    output: Output = None,
    json: Json = False,
) -> None:
    """Submit tests of an app version.

    For example: qgjob submit --org-id acme --app-version-id 1.4.2 --test tests/login.spec.ts --wait

    With --wait, --follow or --junit the exit code tells: 0 all passed, 1 a test failed, 3 the lab's fault, 7 cancelled,
    8 the wait timed out.
    """
    from qgjob import resources
    from qgjob.cli import ci
    from qgjob.cli.waiting import Waiting
    from qgjob.cli.wish import Wish, read_manifest, specs_of

    chosen = chosen_format(output, json)
    waiting = Waiting.of(
        follow,
        wait_timeout,
        junit,
        is_cancelling=cancel_on_interrupt,
        is_result_wanted=is_format_asked_for(output, json),
    )
    written = read_manifest(manifest) if manifest is not None else None
    if written is None and not test:
        raise UsageError("no test is given", hint="add --test tests/login.spec.ts, or --from manifest.toml")
    service = ci.detected(os.environ)
    flags = Wish(
        org_id=org_id,
        app_version_id=app_version_id,
        priority=priority,
        target=target,
        selector=fields.pairs(selector or [], "selector"),
        env=fields.pairs(env or [], "env"),
        secrets=fields.given_secrets(secret or [], os.environ),
        labels={**(service.labels if service is not None else {}), **fields.pairs(label or [], "label")},
        retries=retries,
        timeout=timeout,
        run=run,
    )
    specs = specs_of(flags, test or (), written, Wish(org_id=organisation()))
    packing = None
    if bundle is not None:
        packing, specs = packed(bundle, include or (), specs)
    if idempotency_key is not None:
        fields.name("idempotency-key", idempotency_key)
    with client() as opened:
        if app is not None:
            bring_for(opened, specs, app)
        if packing is not None:
            bring_bundle(opened, packing, specs)
        answer = _submitted(opened, specs, idempotency_key, is_strict=strict)
        for warning in answer.warnings:
            terminal.say(f"warning: {warning}")
        ids = [job.id for job in answer.jobs]
        if answer.replayed:
            terminal.say(f"already submitted under this key: jobs {' '.join(map(str, ids))}")
        if wait or follow or junit is not None:
            waiting.finish(opened, ids, chosen, known=answer.jobs)
        show(resources.jobs(answer.jobs), chosen, render.jobs_table)


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
