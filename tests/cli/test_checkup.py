"""How the checks of `doctor` read."""

from __future__ import annotations

from qgjob.checkup import failed, lines, passed

CHECKS = [
    passed("settings", "coordinator from QGJOB_COORDINATOR, with TLS"),
    failed("coordinator", "no coordinator answers at a.example:1", "start one with `qgjob-coordinator serve`"),
]


def test_a_check_is_a_line_and_its_hint_one_below() -> None:
    assert lines(CHECKS) == [
        "ok       settings     coordinator from QGJOB_COORDINATOR, with TLS",
        "failed   coordinator  no coordinator answers at a.example:1",
        "                      start one with `qgjob-coordinator serve`",
    ]


def test_on_a_narrow_terminal_sentences_go_on_below_themselves() -> None:
    assert lines(CHECKS, 48) == [
        "ok       settings     coordinator from",
        "                      QGJOB_COORDINATOR, with",
        "                      TLS",
        "failed   coordinator  no coordinator answers at",
        "                      a.example:1",
        "                      start one with",
        "                      `qgjob-coordinator serve`",
    ]


def test_a_terminal_too_narrow_for_a_word_cuts_none() -> None:
    assert lines([failed("x", "https://lab.example/a-long-path")], 10) == [
        "failed   x            https://lab.example/a-long-path"
    ]
