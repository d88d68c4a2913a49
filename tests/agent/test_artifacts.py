"""What attempts left behind, on the agent's disk: kept whole, without secrets, and bounded."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from agent import artifacts
from agent.artifacts import ArtifactSpool, LeftBehind, Parcel, content_type_of, safe_name
from agent.core.model import ArtifactKind, AttemptId, Fence, LeaseId, LeaseKey
from coordinator.core.artifacts import checked_content_type, checked_name

KEY = LeaseKey(lease_id=LeaseId(1), fence=Fence(epoch=2, number=3))
ONE, TWO = AttemptId(1), AttemptId(2)
SECRET = 'hunter2"<&>\nsecond line'
PIXELS = b"\x89PNG\r\n\x1a\n\0\0hunter2"


@pytest.fixture
def spool(tmp_path: Path) -> ArtifactSpool:
    return ArtifactSpool(tmp_path / "spool")


def left(path: Path, content: bytes = b"text", name: str | None = None) -> LeftBehind:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return LeftBehind(path=path, name=name or path.name, kind=ArtifactKind.OTHER)


def contents(parcel: Parcel) -> dict[str, bytes]:
    return {file.name: parcel.path(file).read_bytes() for file in parcel.files}


def archive(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return out.getvalue()


def test_files_are_kept_with_their_digests_and_go_one_by_one(spool: ArtifactSpool, tmp_path: Path) -> None:
    files = [left(tmp_path / "out" / "junit.xml", b"<xml/>"), left(tmp_path / "out" / "shot.png", PIXELS)]
    assert spool.keep(ONE, KEY, files, []) == []
    (parcel,) = spool.parcels()
    assert (parcel.attempt, parcel.key) == (ONE, KEY)
    assert contents(parcel) == {"junit.xml": b"<xml/>", "shot.png": PIXELS}
    assert [file.digest for file in parcel.files] == [hashlib.sha256(data).hexdigest() for data in (b"<xml/>", PIXELS)]
    assert [file.content_type for file in parcel.files] == ["application/xml; charset=utf-8", "image/png"]
    rest = spool.forget_file(parcel, parcel.files[0])
    assert [parcel.files for parcel in spool.parcels()] == [rest.files]
    spool.forget_file(rest, rest.files[0])
    assert list(spool.parcels()) == []
    assert list((tmp_path / "spool").iterdir()) == []


def test_later_life_goes_on_with_what_is_whole_and_drops_what_is_not(spool: ArtifactSpool, tmp_path: Path) -> None:
    for attempt in (TWO, ONE, AttemptId(10)):
        spool.keep(attempt, KEY, [left(tmp_path / "a.txt")], [])
    (tmp_path / "spool" / "10.1" / "manifest.json").unlink()  # killed before it was written
    (tmp_path / "spool" / "2.1" / "manifest.json").write_text('{"key": 3}')
    later = ArtifactSpool(tmp_path / "spool")
    assert [parcel.attempt for parcel in later.parcels()] == [ONE]
    assert not (tmp_path / "spool" / "10.1").exists()


def test_another_database_makes_all_of_it_forgotten(spool: ArtifactSpool, tmp_path: Path) -> None:
    spool.keep(ONE, KEY, [left(tmp_path / "a.txt"), left(tmp_path / "b.txt")], [])
    (parcel,) = spool.parcels()
    spool.forget_all()
    assert list(spool.parcels()) == []
    spool.forget_file(parcel, parcel.files[0])
    assert list((tmp_path / "spool").iterdir()) == []


def test_links_and_folders_and_empty_files_are_not_kept(spool: ArtifactSpool, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    files = [LeftBehind(path=tmp_path / "link", name="link", kind=ArtifactKind.OTHER)]
    files += [LeftBehind(path=tmp_path, name="folder", kind=ArtifactKind.OTHER), left(tmp_path / "empty", b"")]
    assert spool.keep(ONE, KEY, files, []) == ["link: it is no plain file", "folder: it is no plain file"]
    assert list(spool.parcels()) == []


def test_limits_cost_the_last_files_and_say_so(
    spool: ArtifactSpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "MAX_FILES", 2)
    monkeypatch.setattr(artifacts, "MAX_FILE_BYTES", 100)
    monkeypatch.setattr(artifacts, "MAX_ATTEMPT_BYTES", 120)
    files = [
        left(tmp_path / name, b"x" * size) for name, size in (("a", 101), ("b", 100), ("c", 21), ("d", 9), ("e", 1))
    ]
    lost = spool.keep(ONE, KEY, files, [])
    assert [sentence.partition(":")[0] for sentence in lost] == ["a", "c", "e"]
    assert [file.name for parcel in spool.parcels() for file in parcel.files] == ["b", "d"]


def test_spool_that_is_full_takes_no_more_until_something_has_gone(tmp_path: Path) -> None:
    spool = ArtifactSpool(tmp_path / "spool", most_bytes=150)
    assert spool.keep(ONE, KEY, [left(tmp_path / "a", b"x" * 100)], []) == []
    assert "no room" in spool.keep(TWO, KEY, [left(tmp_path / "b", b"x" * 100)], [])[0]
    spool = ArtifactSpool(tmp_path / "spool", most_bytes=150)
    assert "no room" in spool.keep(TWO, KEY, [left(tmp_path / "b", b"x" * 100)], [])[0], "also in a later life"
    (parcel,) = spool.parcels()
    spool.forget_file(parcel, parcel.files[0])
    assert spool.keep(TWO, KEY, [left(tmp_path / "b", b"x" * 100)], []) == []


def test_secrets_are_masked_in_texts_reports_and_archives_and_in_names(spool: ArtifactSpool, tmp_path: Path) -> None:
    told = json.dumps({"typed": SECRET}).encode()
    report = b"<template>data:application/zip;base64," + base64.b64encode(archive(**{"report.json": told}))
    trace = archive(**{"trace.jsonl": told, "resources/1.png": PIXELS, "inner.zip": archive(log=b'hunter2"<&>')})
    files = [
        left(tmp_path / "out.log", f"typed {SECRET} there".encode()),
        left(tmp_path / "report.json", told),
        left(tmp_path / "junit.xml", b"<f>hunter2&quot;&lt;&amp;&gt;</f>"),
        left(tmp_path / "index.html", report + b'</template><p>hunter2"&lt;&amp;&gt;</p>'),
        left(tmp_path / "trace.zip", trace),
        left(tmp_path / "shot.png", PIXELS),
        left(tmp_path / "text.png", b'hunter2"<&>'),
        left(tmp_path / "named", name='hunter2"<&>/x.txt'),
    ]
    assert spool.keep(ONE, KEY, files, [SECRET]) == []
    (parcel,) = spool.parcels()
    kept = contents(parcel)
    assert kept["out.log"] == b"typed *** there"
    assert json.loads(kept["report.json"]) == {"typed": "***\\n***"} or b"hunter2" not in kept["report.json"]
    assert kept["junit.xml"] == b"<f>***</f>"
    assert kept["text.png"] == b"***"
    assert kept["shot.png"] == PIXELS, "what a picture shows is not looked at"
    page, _, rest = kept["index.html"].partition(b"</template>")
    assert rest == b"<p>***</p>"
    carried = zipfile.ZipFile(io.BytesIO(base64.b64decode(page.partition(b"base64,")[2])))
    assert b"hunter2" not in carried.read("report.json")
    packed = zipfile.ZipFile(io.BytesIO(kept["trace.zip"]))
    assert b"hunter2" not in packed.read("trace.jsonl")
    assert packed.read("resources/1.png") == PIXELS
    assert zipfile.ZipFile(io.BytesIO(packed.read("inner.zip"))).read("log") == b"***"
    assert "___/x.txt" in kept


def test_secret_in_what_a_test_attached_is_masked_where_a_report_carries_it(
    spool: ArtifactSpool, tmp_path: Path
) -> None:
    body, other = (base64.b64encode(text).decode() for text in (b"typed hunter2 there", b"nothing"))
    report = json.dumps({"attachments": [{"body": body}, {"body": other}, {"base64": body}, {"body": "no base64!"}]})
    assert spool.keep(ONE, KEY, [left(tmp_path / "report.json", report.encode())], ["hunter2"]) == []
    (parcel,) = spool.parcels()
    found = json.loads(contents(parcel)["report.json"])["attachments"]
    masked = base64.b64encode(b"typed *** there").decode()
    assert found == [{"body": masked}, {"body": other}, {"base64": masked}, {"body": "no base64!"}]


def test_second_parcel_of_an_attempt_waits_behind_the_first(spool: ArtifactSpool, tmp_path: Path) -> None:
    spool.keep(ONE, KEY, [left(tmp_path / "merged.txt")], [], 2)
    spool.keep(ONE, KEY, [left(tmp_path / "own.txt")], [])
    later = ArtifactSpool(tmp_path / "spool")
    assert [(parcel.attempt, parcel.files[0].name) for parcel in later.parcels()] == [
        (ONE, "own.txt"),
        (ONE, "merged.txt"),
    ]


def test_what_cannot_be_searched_for_secrets_is_not_kept_where_there_are_any(
    spool: ArtifactSpool, tmp_path: Path
) -> None:
    def files() -> list[LeftBehind]:
        return [
            left(tmp_path / "trace.zip", b"PK\x03\x04 broken"),
            left(tmp_path / "index.html", b"<script>window.playwrightReportBase64 = '?'</script>"),
            left(tmp_path / "ok.txt"),
        ]

    assert spool.keep(ONE, KEY, files(), []) == []
    lost = spool.keep(TWO, KEY, files(), ["hunter2"])
    assert [sentence.partition(":")[0] for sentence in lost] == ["trace.zip", "index.html"]
    assert list(contents(list(spool.parcels())[1])) == ["ok.txt"]


def test_any_name_becomes_one_that_the_coordinator_takes_and_none_comes_twice(
    spool: ArtifactSpool, tmp_path: Path
) -> None:
    odd = [
        "../../etc/passwd",
        "a:b?.png",
        "x" * 300 + ".png",
        "nul",
        "a /b.",
        "\x1b[31m",
        "A.txt",
        "a.txt",
        "",
        "/" * 9,
    ]
    for name in (*odd, "/".join("y" * 150 for _ in range(9)), "/".join("abcdefghijklmnopqrst")):
        assert checked_name(safe_name(name)) == safe_name(name)
        assert checked_content_type(content_type_of(safe_name(name)))
    files = [replace(left(tmp_path / str(number)), name=name) for number, name in enumerate(odd)]
    assert spool.keep(ONE, KEY, files, []) == []
    names = [file.name for parcel in spool.parcels() for file in parcel.files]
    assert len({name.casefold() for name in names}) == len(odd)
    assert "etc/passwd" in names
    assert "a-2.txt" in names


def test_file_that_is_kept_costs_no_second_space(spool: ArtifactSpool, tmp_path: Path) -> None:
    one = left(tmp_path / "video.mp4", os.urandom(1_000))
    spool.keep(ONE, KEY, [one], [])
    (parcel,) = spool.parcels()
    assert parcel.path(parcel.files[0]).stat().st_ino == one.path.stat().st_ino
