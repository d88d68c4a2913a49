from __future__ import annotations

import pytest

from coordinator.core.artifacts import MAX_NAME_BYTES, checked_content_type, checked_name
from coordinator.core.errors import InvalidRequest


@pytest.mark.parametrize(
    "name",
    [
        "junit.xml",
        "html-report/data/3f2a.png",
        "test-results/login-works-ü/test-failed-1.png",
        ".hidden",
        "a b/c",
    ],
)
def test_relative_path_is_a_name(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../up",
        "a/../b",
        "a//b",
        "a/",
        "./a",
        "a\\b",
        "C:a",
        "a\nb",
        "a\x1b[31m",
        "a\u202egnp.exe",
        "a\ud800",
        "nul",
        "COM1.txt",
        "a ",
        "a.",
        "x" * 201,
        "/".join(["x" * 100] * 6),
        "/".join("x" * 17),
    ],
)
def test_name_that_could_lead_elsewhere_or_that_some_file_system_refuses_is_none(name: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        checked_name(name)
    assert refusal.value.fields == {"field": "name"}
    assert len("/".join(["x" * 100] * 6)) > MAX_NAME_BYTES


def test_media_type_is_one_that_a_header_can_carry() -> None:
    for good in ("image/png", "text/plain; charset=utf-8", "application/x-ndjson"):
        assert checked_content_type(good) == good
    for bad in ("", "png", "text/html\r\nX: y", "text/plain; boundary=x", "a/" + "b" * 100):
        with pytest.raises(InvalidRequest):
            checked_content_type(bad)
