"""What `qgjob submit --bundle` does: packs a project, expands patterns of specs, and uploads what the lab lacks."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qgjob.cli import terminal
from qgjob.cli.progress import showing_progress

if TYPE_CHECKING:
    from qgjob.bundles import Packing
    from qgjob.client import Client
    from qgjob.v1.job_pb2 import JobSpec

KIB = 1_024


def packed(directory: Path, include: Sequence[str], specs: list[JobSpec]) -> tuple[Packing, list[JobSpec]]:
    """Return what goes into a bundle, and the jobs with patterns replaced by the spec files that they stand for.

    Raises:
        UsageError: It cannot be packed, or a job's test is not in it.
    """
    from qgjob.bundles import choose, expand
    from qgjob.v1.job_pb2 import JobSpec

    packing = choose(directory, include)
    expanded: list[JobSpec] = []
    for spec in specs:
        for test in expand(packing, (spec.test,)):
            one = JobSpec()
            one.CopyFrom(spec)
            one.test = test
            expanded.append(one)
    return packing, expanded


def bring_bundle(opened: Client, packing: Packing, specs: list[JobSpec]) -> None:
    """Pack, upload unless the coordinator has the same already, and let the jobs name it."""
    from qgjob.bundles import write
    from qgjob.uploads import upload_file

    with tempfile.TemporaryDirectory(prefix="qgjob-") as folder:
        path = Path(folder) / "bundle.tar"
        with path.open("wb") as file:
            write(packing, file)
        with showing_progress(f"{packing.directory.name or 'bundle'}.tar") as tell:
            blob = upload_file(opened, path, tell)
    for spec in specs:
        spec.bundle_digest = blob.digest
    how = "was there already" if blob.was_there else "uploaded"
    terminal.say(f"bundle of {len(packing.names)} files, {blob.size / KIB:.0f} KiB: {how}; sha256 {blob.digest[:16]}")
