from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from coordinator.core.model import JobId, Request
from coordinator.services.requests import AcceptedRequests
from coordinator.store import StoreError


class Archive:
    """Stands in for the store; it answers when it is told to."""

    def __init__(self) -> None:
        self.reads: list[list[tuple[str, str]]] = []
        self.has_begun = threading.Event()
        self.may_answer = threading.Event()
        self.failure: StoreError | None = None

    def may_have_request(self, key: tuple[str, str]) -> bool:
        return key[1] != "never seen"

    def find_requests(self, keys: Sequence[tuple[str, str]]) -> list[Request]:
        self.reads.append(list(keys))
        self.has_begun.set()
        assert self.may_answer.wait(timeout=60)
        if self.failure is not None:
            raise self.failure
        return [Request(org_id=org, key=key, payload_sha256="p", jobs=(JobId(1),)) for org, key in keys if "old" in key]


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def accepted(archive: Archive) -> AcceptedRequests:
    store: Any = archive
    return AcceptedRequests(store)


async def test_those_that_come_during_a_read_share_the_next(archive: Archive, accepted: AcceptedRequests) -> None:
    first = asyncio.create_task(accepted.find("acme", "old-1"))
    assert await asyncio.to_thread(archive.has_begun.wait, 10)
    others = [asyncio.create_task(accepted.find("acme", key)) for key in ("new-2", "old-3", "old-3", "new-4")]
    await asyncio.sleep(0)
    archive.may_answer.set()
    answers = await asyncio.gather(first, *others)
    assert [answer.key if answer is not None else None for answer in answers] == ["old-1", None, "old-3", "old-3", None]
    assert archive.reads == [[("acme", "old-1")], [("acme", "new-2"), ("acme", "old-3"), ("acme", "new-4")]]


async def test_request_without_a_name_is_looked_up_by_nobody(archive: Archive, accepted: AcceptedRequests) -> None:
    assert await accepted.find("acme", "") is None
    assert archive.reads == []


async def test_request_that_memory_knows_to_be_new_is_looked_up_by_nobody(
    archive: Archive, accepted: AcceptedRequests
) -> None:
    assert await accepted.find("acme", "never seen") is None
    assert archive.reads == []


async def test_everybody_hears_that_the_database_did_not_answer(archive: Archive, accepted: AcceptedRequests) -> None:
    archive.failure = StoreError("gone")
    archive.may_answer.set()
    answers = await asyncio.gather(*(accepted.find("acme", str(key)) for key in range(3)), return_exceptions=True)
    assert answers == [archive.failure] * 3
    archive.failure = None
    assert await accepted.find("acme", "new") is None


async def test_caller_who_goes_away_takes_the_answer_from_nobody(archive: Archive, accepted: AcceptedRequests) -> None:
    leaving, staying = (asyncio.create_task(accepted.find("acme", "old")) for _ in range(2))
    assert await asyncio.to_thread(archive.has_begun.wait, 10)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    archive.may_answer.set()
    assert await staying is not None
