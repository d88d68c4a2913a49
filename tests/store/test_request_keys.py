"""A key that was accepted is never taken for a new one; a new one is nearly never taken for one that was accepted."""

from __future__ import annotations

import random

import pytest

from coordinator.core.model import JobId, Request
from coordinator.core.step import PutRequest
from coordinator.store import Store, StoreError, request_keys
from coordinator.store.request_keys import RequestKey, RequestKeys
from tests.store.conftest import OpenStore


def put(name: str, org: str = "acme") -> PutRequest:
    return PutRequest(Request(org_id=org, key=name, payload_sha256="p", jobs=(JobId(1),)))


def acme(*names: str) -> list[RequestKey]:
    return [("acme", name) for name in names]


def learn_all(store: Store) -> None:
    while not store.learn_requests(2):
        pass


def held(store: Store, *names: str) -> list[str]:
    return [name for name in names if store.may_have_request(("acme", name))]


# In the database


def test_any_key_may_be_an_old_one_until_all_are_learnt(open_store: OpenStore) -> None:
    store = open_store()
    assert held(store, "new") == ["new"]
    store.start_epoch()
    assert held(store, "new") == ["new"]
    assert store.learn_requests(2)
    assert held(store, "new") == []


def test_committed_key_is_held_of_its_organisation_alone(store: Store) -> None:
    learn_all(store)
    store.commit([put("a"), put("b")])
    assert held(store, "a", "b", "c") == ["a", "b"]
    assert not store.may_have_request(("other", "a"))


def test_key_is_held_before_its_row_can_be_read_and_when_its_commit_fails(store: Store) -> None:
    learn_all(store)
    store.commit([put("a")])
    with pytest.raises(StoreError):
        store.commit([put("b"), put("a")])
    assert held(store, "a", "b", "c") == ["a", "b"]


def test_keys_of_earlier_epochs_are_learnt_page_by_page(open_store: OpenStore) -> None:
    before, names = open_store(), [f"k{number}" for number in range(5)]
    before.start_epoch()
    before.commit([*(put(name) for name in names), put("k1", org="other")])
    after = open_store()
    after.start_epoch()
    assert [after.learn_requests(2) for _ in range(4)] == [False, False, False, True]
    assert held(after, *names, "new") == names
    assert after.may_have_request(("other", "k1"))


def test_key_that_was_committed_until_the_epoch_was_raised_is_learnt(open_store: OpenStore) -> None:
    leader, standby = open_store(), open_store()
    leader.start_epoch()
    learn_all(leader)
    leader.commit([put("first")])
    standby.start_epoch()
    with pytest.raises(StoreError):
        leader.commit([put("too late")])
    learn_all(standby)
    assert held(standby, "first", "too late") == ["first"]


def test_store_that_begins_another_epoch_learns_what_others_committed_meanwhile(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    store.start_epoch()
    learn_all(store)
    other.start_epoch()
    other.commit([put("a")])
    store.start_epoch()
    assert held(store, "a", "new") == ["a", "new"]
    learn_all(store)
    assert held(store, "a", "new") == ["a"]


def test_key_that_is_committed_while_others_are_learnt_stays(open_store: OpenStore) -> None:
    before = open_store()
    before.start_epoch()
    before.commit([put("b"), put("c"), put("d")])
    store = open_store()
    store.start_epoch()
    assert not store.learn_requests(2)
    store.commit([put("a"), put("e")])
    learn_all(store)
    assert held(store, "a", "b", "c", "d", "e", "f") == ["a", "b", "c", "d", "e"]


def test_forgotten_key_is_new_again(store: Store) -> None:
    learn_all(store)
    store.commit([put("a"), put("b")])
    store.forget_requests(acme("a"))
    assert held(store, "a", "b") == ["b"]
    store.commit([put("a")])
    assert held(store, "a", "b") == ["a", "b"]


def test_key_that_was_not_there_to_forget_takes_nothing_with_it(store: Store) -> None:
    learn_all(store)
    store.commit([put("a")])
    store.forget_requests(acme("a", "never"))
    store.commit([put("a")])
    store.forget_requests(acme("never"))
    assert held(store, "a") == ["a"]


def test_key_that_is_forgotten_while_others_are_learnt_costs_a_look_up_at_most(open_store: OpenStore) -> None:
    before = open_store()
    before.start_epoch()
    before.commit([put("a"), put("b"), put("c")])
    store = open_store()
    store.start_epoch()
    store.learn_requests(2)
    store.forget_requests(acme("a", "c"))
    store.commit([put("c")])
    learn_all(store)
    assert {"b", "c"} <= set(held(store, "a", "b", "c"))


def test_whatever_happens_every_row_is_held(open_store: OpenStore) -> None:
    chance = random.Random(7)
    names = [f"k{number}" for number in range(12)]
    store, rows = open_store(), set[str]()
    store.start_epoch()
    for _ in range(200):
        match chance.choice(("commit", "commit", "forget", "learn", "restart")):
            case "commit":
                new = {name for name in chance.sample(names, 3) if name not in rows}
                store.commit([put(name) for name in new])
                rows |= new
            case "forget":
                gone = chance.sample(names, 2)
                store.forget_requests(acme(*gone))
                rows -= set(gone)
            case "learn":
                store.learn_requests(3)
            case _:
                store.start_epoch()
        assert rows <= set(held(store, *names))


# In memory


@pytest.fixture
def keys() -> RequestKeys:
    keys = RequestKeys()
    keys.learn([], is_last=True)
    return keys


def test_of_two_keys_with_one_hash_the_one_that_goes_leaves_the_other(
    keys: RequestKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_keys, "_place", lambda _: (3, b"twins!"))
    keys.add(acme("a", "b"))
    keys.discard(acme("a"))
    assert keys.may_hold(("acme", "b"))
    keys.discard(acme("b"))
    assert not keys.may_hold(("acme", "b"))


def test_key_that_is_inserted_anew_before_it_is_discarded_stays(keys: RequestKeys) -> None:
    keys.add(acme("a"))
    keys.add(acme("a"))
    keys.discard(acme("a"))
    assert keys.may_hold(("acme", "a"))


def test_row_that_was_held_to_be_none_makes_any_key_possible_until_all_are_learnt_anew(keys: RequestKeys) -> None:
    keys.add(acme("a", "b"))
    assert not keys.discard(acme("never", "a"))
    assert keys.may_hold(("acme", "new"))
    keys.add(acme("meanwhile"))
    keys.learn(acme("b"), is_last=True)
    assert [name for name in ("a", "b", "meanwhile", "new") if keys.may_hold(("acme", name))] == ["b", "meanwhile"]


def test_mark_is_taken_out_where_one_begins(keys: RequestKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = {"first": b"xxxabc", "second": b"defxxx", "across": b"abcdef"}
    monkeypatch.setattr(request_keys, "_place", lambda key: (0, marks[key[1]]))
    keys.add(acme("first", "second", "across"))
    keys.discard(acme("across"))
    assert keys.may_hold(("acme", "first"))
    assert keys.may_hold(("acme", "second"))


def test_of_new_keys_hardly_any_is_taken_for_an_old_one(keys: RequestKeys) -> None:
    keys.add(acme(*(str(number) for number in range(20_000))))
    assert all(keys.may_hold(key) for key in acme(*(str(number) for number in range(20_000))))
    assert sum(keys.may_hold(("acme", f"new {number}")) for number in range(20_000)) <= 1


def test_deletion_of_a_row_that_was_not_known_is_told_and_the_rows_are_learnt_anew(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    learn_all(store)
    store.commit([put("a"), put("b")])
    store._request_keys.discard(acme("a"))
    store.forget_requests(acme("a"))
    assert "request_keys_incomplete" in capsys.readouterr().out
    assert held(store, "b", "new") == ["b", "new"]
    learn_all(store)
    assert held(store, "a", "b", "new") == ["b"]
