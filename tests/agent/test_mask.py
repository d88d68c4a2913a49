"""Secrets are masked wherever the stream is cut, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.model import Blame, Failure, TestResult, TestState
from agent.mask import Mask, masked, masked_failure, masked_test


def told(secrets: list[str], *pieces: bytes) -> bytes:
    mask = Mask(secrets)
    return b"".join([*map(mask.feed, pieces), mask.feed(b"", is_end=True)])


@pytest.mark.parametrize(
    ("secrets", "pieces", "shown"),
    [
        (["hunter2"], [b"my hun", b"ter2 is", b" hunter2\n"], b"my *** is ***\n"),
        (["hunter2"], [b"hunt", b"er and hunter"], b"hunter and hunter"),
        (["abcd", "abcdef"], [b"xabcd", b"efx"], b"x***x"),
        (["xxab", "abcd"], [b"-xxab", b"cd-"], b"-***-"),
        (["aaaa"], [b"aaa", b"aaa", b"ab"], b"***b"),
        (["first line\nsecond"], [b"> first line\r\n> second\r\n"], b"> ***\r\n> ***\r\n"),
        (["first line\na\nb"], [b"a b first line"], b"a b ***"),
        (["pässwörd"], ["ein pässwörd".encode()[:6], "ein pässwörd".encode()[6:]], b"ein ***"),
        ([], [b"all ", b"of it"], b"all of it"),
    ],
    ids=["cut", "not whole", "longer", "overlap", "itself", "lines", "short lines", "UTF-8", "none"],
)
def test_what_belongs_to_a_secret_becomes_stars(secrets: list[str], pieces: list[bytes], shown: bytes) -> None:
    assert told(secrets, *pieces) == shown


WORDS = st.text("abc", min_size=4, max_size=7)


@given(secrets=st.lists(WORDS, min_size=1, max_size=3), pieces=st.lists(st.text("abc\n", max_size=9), max_size=9))
def test_however_the_stream_is_cut_no_byte_of_a_secret_passes_and_every_other_does(
    secrets: list[str], pieces: list[str]
) -> None:
    text = "".join(pieces)
    hidden = [False] * len(text)
    for secret in secrets:
        for start in range(len(text)):
            if text.startswith(secret, start):
                hidden[start : start + len(secret)] = [True] * len(secret)
    shown = told(secrets, *(piece.encode() for piece in pieces)).decode()
    assert shown.replace("*", "") == "".join(
        letter for letter, is_hidden in zip(text, hidden, strict=True) if not is_hidden
    )
    assert ("*" in shown) == any(hidden)
    assert told(secrets, *(letter.encode() for letter in text)).decode() == shown


def test_a_quiet_test_is_told_at_once_but_for_what_may_become_a_secret() -> None:
    mask = Mask(["hunter2"])
    assert mask.feed(b"password: ") == b"password: "
    assert mask.feed(b"oh") == b"o"
    assert mask.feed(b"!") == b"h!"


def test_a_secret_that_a_cut_text_ends_in_is_masked_too() -> None:
    assert masked("expected hunter2 to be hunter", ["hunter2"]) == "expected *** to be ***"
    assert masked("the hun", ["hunter2"]) == "the hun"


def test_results_and_failures_lose_their_secrets() -> None:
    test = TestResult(id="1", title="logs hunter2 in", state=TestState.FAILED, error="no hunter2")
    assert masked_test(test, ["hunter2"]) == TestResult(
        id="1", title="logs *** in", state=TestState.FAILED, error="no ***"
    )
    failure = Failure(reason="TEST_FAILED", message="got hunter2", blame=Blame.TEST)
    assert masked_failure(failure, ["hunter2"]) == Failure(reason="TEST_FAILED", message="got ***", blame=Blame.TEST)
    assert masked_failure(None, ["hunter2"]) is None
