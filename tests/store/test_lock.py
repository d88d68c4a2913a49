"""Who may have a database for itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.store import Store, StoreInUse, StoreUnreadable

HOLDER = """
import sys
from coordinator.store import Store
store = Store.open(sys.argv[1], is_sole=True)
print("held", flush=True)
sys.stdin.read()
"""


def sqlite_at(path: Path) -> str:
    return f"sqlite:///{path}"


def test_second_sole_opener_of_a_sqlite_database_is_refused_by_its_name(tmp_path: Path) -> None:
    first = Store.open(sqlite_at(tmp_path / "qgjob.db"), is_sole=True)
    with pytest.raises(StoreInUse, match=r"qgjob\.db is in use by another coordinator"):
        Store.open(sqlite_at(tmp_path / "qgjob.db"), is_sole=True)
    first.close()


def test_refused_opener_has_not_raised_the_epoch(tmp_path: Path) -> None:
    first = Store.open(sqlite_at(tmp_path / "qgjob.db"), is_sole=True)
    epoch = first.start_epoch().epoch
    with pytest.raises(StoreInUse):
        Store.open(sqlite_at(tmp_path / "qgjob.db"), is_sole=True)
    assert first.load().counters.epoch == epoch
    first.close()


def test_database_is_free_again_once_it_is_closed(tmp_path: Path) -> None:
    Store.open(sqlite_at(tmp_path / "qgjob.db"), is_sole=True).close()
    Store.open(sqlite_at(tmp_path / "qgjob.db"), is_sole=True).close()


def test_two_names_of_one_file_are_one_lock(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    first = Store.open(sqlite_at(tmp_path / "real" / "qgjob.db"), is_sole=True)
    with pytest.raises(StoreInUse):
        Store.open(sqlite_at(tmp_path / "alias" / "qgjob.db"), is_sole=True)
    first.close()


def test_two_databases_of_one_folder_are_two_locks(tmp_path: Path) -> None:
    stores = [Store.open(sqlite_at(tmp_path / name), is_sole=True) for name in ("a.db", "b.db")]
    assert stores[0].cluster_id != stores[1].cluster_id
    for store in stores:
        store.close()


def test_database_that_cannot_be_opened_is_not_held(tmp_path: Path) -> None:
    (tmp_path / "qgjob.db").write_bytes(b"this is no database" * 1_000)
    with pytest.raises(StoreUnreadable):
        Store.open(sqlite_at(tmp_path / "qgjob.db"), is_sole=True)
    (tmp_path / "qgjob.db").unlink()
    Store.open(sqlite_at(tmp_path / "qgjob.db"), is_sole=True).close()


def test_folder_that_does_not_exist_is_named_by_a_sole_opener(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreadable, match=r"nowhere.*No such file"):
        Store.open(sqlite_at(tmp_path / "nowhere" / "qgjob.db"), is_sole=True)


def test_killed_process_leaves_no_lock_behind(tmp_path: Path) -> None:
    url = sqlite_at(tmp_path / "qgjob.db")
    command = [sys.executable, "-c", HOLDER, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreInUse):
            Store.open(url, is_sole=True)
        holder.kill()
    Store.open(url, is_sole=True).close()
