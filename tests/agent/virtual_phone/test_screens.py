"""The file of screens: what it may say, what is refused, and what the app does with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.virtual_phone.errors import ScreensInvalid
from agent.virtual_phone.phone import KEY_BACK, Phone
from agent.virtual_phone.screens import ScreenSet, load_screens, parse_screens
from agent.virtual_phone.uiautomator.node import build_tree
from tests.agent.virtual_phone.factories import ACTIVITY, PACKAGE, Clock, install, make_phone

APP = """
start = "one"
[screens.one]
elements = [
  { id = "next", text = "Next", goto = "two" },
  { id = "late", text = "Late", delay = 2 },
  { id = "name", class = "input", hint = "Name", remember = true },
  { id = "dead", text = "Dead", goto = "two", enabled = false },
  { id = "about", text = "{package} {version} on {model}" },
]
[screens.two]
elements = [{ id = "back", text = "Back", back = true }]
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("start = [\nx", "line 2"),
        ("", "there must be tables"),
        ("start = 'one'\nscreens = 3", "there must be tables"),
        ("start = 'one'\n[screens]\none = 3", "there must be tables"),
        ("start = 'two'\n[screens.one]\nelements = []", "start is 'two', which is no screen"),
        ("[screens.one]\nelements = []", "start is None"),
        ("colour = 1\nstart = 'one'\n[screens.one]\nelements = []", "unknown key 'colour'"),
        ("start = 'one'\n[screens.one]\nelements = 3", "screen one: it has an array"),
        ("start = 'one'\n[screens.one]\nelements = [3]", "screen one, element 1: not a table"),
        ("start = 'one'\n[screens.one]\nelements = [{ txt = 'x' }]", "unknown key 'txt'"),
        ("start = 'one'\n[screens.one]\nelements = [{ text = 3 }]", "text cannot be 3"),
        ("start = 'one'\n[screens.one]\nelements = [{ id = 'a', delay = true }]", "delay cannot be True"),
        ("start = 'one'\n[screens.one]\nelements = [{ id = 'a', delay = nan }]", "delay must be from 0"),
        ("start = 'one'\n[screens.one]\nelements = [{ hint = 'a' }]", "needs an id"),
        ("start = 'one'\n[screens.one]\nelements = [{ id = 'a', class = 'slider' }]", "unknown class 'slider'"),
        ("start = 'one'\n[screens.one]\nelements = [{ id = 'a', goto = 'two' }]", "goto 'two' is no screen"),
        ("start = 'one'\n[screens.one]\nelements = [" + "{ id = 'a' }, " * 501 + "]", "more than 500 elements"),
    ],
)
def test_screens_that_cannot_be_used_say_where_and_why(text: str, said: str) -> None:
    with pytest.raises(ScreensInvalid, match=said):
        parse_screens(text)


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for name, content in (("none.toml", None), ("binary.toml", b"\xff\xfe"), ("broken.toml", b"start = ")):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ScreensInvalid, match=name):
            load_screens(path)


async def running(screens: ScreenSet, clock: Clock | None = None) -> Phone:
    phone = make_phone(screens=screens, clock=clock)
    await install(phone)
    phone.launch(PACKAGE, ACTIVITY)
    return phone


def texts(phone: Phone) -> list[str]:
    return [node.text for node in build_tree(phone).walk() if node.target is not None]


def tap(phone: Phone, resource_id: str) -> None:
    (target,) = [node.target for node in build_tree(phone).walk() if node.resource_id == resource_id]
    assert isinstance(target, int)
    phone.tap_element(target)


async def test_default_file_is_an_app_that_can_be_walked() -> None:
    phone = await running(load_screens())
    assert "Wikipedia" in texts(phone)
    tap(phone, "skip")
    assert "Explore" in texts(phone)


async def test_taps_lead_to_screens_and_back() -> None:
    phone = await running(parse_screens(APP))
    tap(phone, "dead")
    assert "Next" in texts(phone)
    tap(phone, "next")
    assert texts(phone) == ["Back"]
    tap(phone, "back")
    assert "Next" in texts(phone)
    phone.press(KEY_BACK)
    assert phone.front is None


async def test_late_element_appears_after_its_delay() -> None:
    clock = Clock()
    phone = await running(parse_screens(APP), clock)
    clock.seconds = 1.9
    assert "Late" not in texts(phone)
    clock.seconds = 2.0
    assert "Late" in texts(phone)


async def test_placeholders_are_filled_in() -> None:
    assert f"{PACKAGE} 1.0 on Virtual_Phone" in texts(await running(parse_screens(APP)))


async def test_remembered_input_outlives_the_process_until_its_data_is_cleared() -> None:
    phone = await running(parse_screens(APP))
    assert phone.front is not None
    tap(phone, "name")
    phone.front.type_text("Ada")
    phone.stop(PACKAGE)
    phone.launch(PACKAGE, ACTIVITY)
    assert "Ada" in texts(phone)
    phone.stop(PACKAGE)
    phone.packages.clear(PACKAGE)
    phone.launch(PACKAGE, ACTIVITY)
    assert "Name" in texts(phone)
