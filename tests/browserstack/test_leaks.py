"""The search for leaked keys finds them where they were planted: a search that finds nothing proves nothing else."""

from __future__ import annotations

import base64
import gzip
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.browserstack.leaks import ProcessWatch, files_with, holds, spellings

KEY = "s3cret/Key+OfTheLab"
WANTED = spellings(KEY)


def zipped(data: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deep/in.txt", data)
    return target.getvalue()


@pytest.mark.parametrize("before", ["", "a", "ab", "lab_user:", "Basic x:"])
@pytest.mark.parametrize("after", ["", "z", "zz"])
def test_key_is_found_in_base64_whatever_stands_around_it(before: str, after: str) -> None:
    text = f"{before}{KEY}{after}".encode()
    assert holds(b"x" + base64.b64encode(text) + b"y", WANTED)
    assert holds(base64.urlsafe_b64encode(text), WANTED)


@pytest.mark.parametrize(
    "data",
    [
        KEY.encode(),
        KEY.encode().hex().encode(),
        b"https://lab:s3cret%2FKey%2BOfTheLab@hub",
        zipped(KEY.encode()),
        zipped(zipped(b"k=" + KEY.encode())),
        gzip.compress(KEY.encode()),
        b'<script src="data:application/zip;base64,' + base64.b64encode(zipped(KEY.encode() * 9)) + b'">',
    ],
    ids=["plain", "hexadecimal", "address", "zip", "zip in zip", "gzip", "page"],
)
def test_key_is_found_wherever_it_is_packed(data: bytes) -> None:
    assert holds(data, WANTED)
    assert not holds(data, spellings("another key of no lab"))


def test_files_are_told_by_their_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(KEY)
    (tmp_path / "clean").write_text("nothing")
    (tmp_path / "report.zip").write_bytes(zipped(KEY.encode()))
    (tmp_path / KEY.encode().hex()).touch()
    found = {path.name for path in files_with(tmp_path, WANTED, but="credentials")}
    assert found == {"report.zip", KEY.encode().hex()}


@pytest.mark.parametrize("where", ["words", "environment"])
def test_processes_are_told_by_their_words_and_their_environment(tmp_path: Path, where: str) -> None:
    words = [KEY] if where == "words" else []
    environment = {"FOLDER": str(tmp_path), **({"SECRET": KEY} if where == "environment" else {})}
    command = [sys.executable, "-c", "print(flush=True); input()", *words]
    watch = ProcessWatch(tmp_path, WANTED)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        watch.look()
        process.communicate(b"\n")
    assert len(watch.leaks) == 1
    assert watch.leaks <= watch.seen
