from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.config import ConfigError
from coordinator.core.logfile import LogPart
from coordinator.core.model import AttemptId
from coordinator.storage import Directory, claim
from coordinator.storage.s3 import S3
from tests.coordinator.conftest import MakeStorage
from tests.s3 import Bucket


def test_new_directory_takes_the_name_and_keeps_it(tmp_path: Path) -> None:
    claim(Directory(tmp_path), "abc", may_be_new=True)
    claim(Directory(tmp_path), "abc", may_be_new=False)
    assert [file.name for file in tmp_path.iterdir()] == ["storage_id"]


def test_directory_of_another_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    claim(Directory(tmp_path), "abc", may_be_new=True)
    with pytest.raises(ConfigError, match=r"belongs to another database.*abc.*def"):
        claim(Directory(tmp_path), "def", may_be_new=True)
    assert (tmp_path / "storage_id").read_text() == "abc\n"


def test_nameless_directory_does_not_become_that_of_an_older_database(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not hold the logs") as refusal:
        claim(Directory(tmp_path), "abc", may_be_new=False)
    assert f"write abc into {tmp_path / 'storage_id'}" in refusal.value.hint
    assert not list(tmp_path.iterdir())


def test_way_out_that_the_refusal_names_works(tmp_path: Path) -> None:
    (tmp_path / "storage_id").write_text("abc")
    claim(Directory(tmp_path), "abc", may_be_new=False)


def test_unreadable_name_is_refused_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "storage_id").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"storage_id cannot be read"):
        claim(Directory(tmp_path), "abc", may_be_new=True)


def test_directory_that_cannot_be_written_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone/storage_id cannot be written: No such file"):
        claim(Directory(tmp_path / "gone"), "abc", may_be_new=True)


def test_storage_of_every_kind_bears_its_name(make_storage: MakeStorage) -> None:
    assert make_storage().read_storage_id() == ""
    claim(make_storage(), "abc", may_be_new=True)
    claim(make_storage(), "abc", may_be_new=False)
    with pytest.raises(ConfigError, match=r"belongs to another database.*abc.*def"):
        claim(make_storage(), "def", may_be_new=True)


def test_bucket_that_does_not_exist_is_refused_by_its_name(bucket: Bucket) -> None:
    with pytest.raises(ConfigError, match=r"s3://nowhere/storage_id cannot be written"):
        claim(S3("s3://nowhere", settings=bucket.settings), "abc", may_be_new=True)


def test_space_of_each_log_is_known_and_given_back(make_storage: MakeStorage) -> None:
    storage = make_storage()
    for attempt, data in ((1, b"one"), (257, b"seven")):
        storage.write(LogPart(attempt=AttemptId(attempt), epoch=1, start=0, size=len(data)), 0, data)
    assert sorted(storage.sizes()) == [(1, 3), (257, 5)]
    storage.remove(AttemptId(1))
    storage.remove(AttemptId(2))
    assert list(storage.sizes()) == [(257, 5)]
