"""`qgjob builds`, and the uploads of `qgjob submit --app`."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qgjob.cli import fields, lab_tables, terminal, words
from qgjob.cli.command import Command
from qgjob.cli.progress import showing_progress
from qgjob.cli.session import Json, Output, chosen_format, client, organisation, show, show_one
from qgjob.errors import UsageError

if TYPE_CHECKING:
    from qgjob.client import Client
    from qgjob.v1.build_pb2 import Build
    from qgjob.v1.job_pb2 import JobSpec

app = typer.Typer(help="Upload builds, and show them.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep the commands below commands of their own."""


@app.command("upload", cls=Command)
def upload_build(
    file: Annotated[Path, typer.Argument(help="The app's binary: an .apk, an .ipa, or an .app of Xcode.")],
    app_version_id: Annotated[str, typer.Option("--app-version-id", metavar="APP", help="The app version that it is.")],
    org_id: Annotated[
        str | None, typer.Option("--org-id", metavar="ORG", help="The organisation; default: QGJOB_ORG_ID.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of another binary; jobs that were accepted keep theirs.")
    ] = False,
    output: Output = None,
    json: Json = False,
) -> None:
    """Upload a build, and register it: jobs that are submitted from now on are tested against it."""
    from qgjob import resources

    chosen = chosen_format(output, json)
    org = org_id or organisation()
    if not org:
        raise UsageError("no organisation is given", hint="add --org-id, or set QGJOB_ORG_ID")
    names = fields.name("org-id", org), fields.name("app-version-id", app_version_id)
    with client() as opened:
        build = bring(opened, *names, file, is_replacing=replace)
    show_one(resources.build(build), chosen, lab_tables.build_block, key="digest")


@app.command("list", cls=Command)
def list_builds(
    org_id: Annotated[
        str | None, typer.Option("--org-id", metavar="ORG", help="An organisation; default: all.")
    ] = None,
    output: Output = None,
    json: Json = False,
) -> None:
    """List the builds that were registered or tested, the last one first."""
    from qgjob import resources

    chosen = chosen_format(output, json)
    with client() as opened:
        found = [resources.build(build) for build in opened.list_builds(org_id or "")]
    show(found, chosen, lab_tables.builds_table, key="app_version_id")


def bring(opened: Client, org_id: str, app_version_id: str, file: Path, *, is_replacing: bool = False) -> Build:
    """Upload a build unless the coordinator has it, and register it."""
    from qgjob.appfile import read_app_file
    from qgjob.uploads import upload_file

    with _as_file(file) as binary:
        with showing_progress(file.name) as tell:
            blob = upload_file(opened, binary, tell)
        app = read_app_file(binary)
    registered = opened.register_build(
        org_id,
        app_version_id,
        blob.digest,
        file_name=file.name,
        is_replacing=is_replacing,
        platform=app.platform,
        kind=app.kind,
    )
    how = "was there already" if blob.was_there else f"uploaded, {words.size(blob.size)}"
    what = f" for {app.platform}" if app.platform else ""
    terminal.say(f"{file.name}: {how}; {app_version_id} is sha256 {blob.digest[:16]}{what}")
    return registered


@contextlib.contextmanager
def _as_file(build: Path) -> Iterator[Path]:
    """Give the file of a build; the folder of an app for iOS simulators is packed.

    Raises:
        UsageError: It is another folder, or cannot be packed.
    """
    if not build.is_dir():
        yield build
        return
    from qgjob.appfile import pack_app

    with tempfile.TemporaryDirectory(prefix="qgjob-") as folder:
        archive = Path(folder) / f"{build.resolve().name}.zip"
        try:
            pack_app(build.resolve(), archive)
        except ValueError as error:
            raise UsageError(str(error), hint="give an .apk, an .ipa, or the .app that Xcode made") from error
        except OSError as error:
            raise UsageError(f"{build} cannot be packed: {error}", hint="check the folder") from error
        yield archive


def bring_for(opened: Client, specs: list[JobSpec], file: Path) -> None:
    """Upload and register the build of jobs before they are submitted.

    Raises:
        UsageError: They are of several app versions, which cannot all be this one.
    """
    versions = sorted({(spec.org_id, spec.app_version_id) for spec in specs})
    if len(versions) > 1:
        named = ", ".join(version for _, version in versions)
        raise UsageError(f"--app is one build, and the jobs are of {named}", hint="use `qgjob builds upload` for each")
    bring(opened, *versions[0], file)
