"""UiSelector and XPath over the default app's first screen."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.virtual_phone.phone import Phone
from agent.virtual_phone.uiautomator import uiselector, xpath
from agent.virtual_phone.uiautomator.node import build_tree
from agent.virtual_phone.uiautomator.selection import SelectorInvalid
from tests.agent.virtual_phone.factories import ACTIVITY, PACKAGE, install, make_phone


async def at_home() -> Phone:
    phone = make_phone()
    await install(phone)
    phone.launch(PACKAGE, ACTIVITY)
    return phone


def by_xpath(phone: Phone, expression: str) -> list[str]:
    root = build_tree(phone)
    return [node.text or node.class_name.rpartition(".")[2] for node in xpath.find(root, expression, root)]


def by_uiselector(phone: Phone, expression: str) -> list[str]:
    return [node.text for node in uiselector.find(phone, expression, build_tree(phone))]


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("//*[@text='Skip']", ["Skip"]),
        ('//android.widget.Button[contains(@text, "LANG")]', ["ADD OR EDIT LANGUAGES"]),
        ("//android.widget.Button", ["ADD OR EDIT LANGUAGES", "Skip"]),
        ("//android.widget.Button[2]", ["Skip"]),
        ("(//android.widget.TextView)[last()]", ["Version 1.0"]),
        ("//*[@resource-id='skip' or @resource-id='title']", ["Wikipedia", "Skip"]),
        ("//*[starts-with(@text, 'Version') and @enabled='true']", ["Version 1.0"]),
        ("//*[@text='Skip']/following-sibling::*", ["Version 1.0"]),
        ("//*[@text='Skip']/preceding-sibling::*[1]", ["ADD OR EDIT LANGUAGES"]),
        ("//*[@text='Skip']/..", ["LinearLayout"]),
        ("//*[@text='Skip'] | //*[@text='Wikipedia']", ["Wikipedia", "Skip"]),
        ("//*[matches(@text, '^Wiki')]", ["Wikipedia"]),
        ("//*[normalize-space(@text)='Skip']", ["Skip"]),
        ("//android.widget.LinearLayout/*[position() < 3]", ["Wikipedia", "The free encyclopedia"]),
        ("/hierarchy", ["hierarchy"]),
        ("//*[@text='nowhere']", []),
        ("//*[@no-such-attribute]", []),
        ("//android.widget.Button[" + "9" * 400 + "]", []),
    ],
)
async def test_xpath_finds(expression: str, found: list[str]) -> None:
    assert by_xpath(await at_home(), expression) == found


@pytest.mark.parametrize(
    "expression",
    ["", "//", "//*[", "//*[@text=", "//*]", "'text'", "count(//*)", "//*[frob()]", "following::*", "1 +", "//*[" * 60,
     "(" * 60 + "//*", "//*" * 5000, "\\", "//*[matches(@text, '(')]", "//*[contains(@text)]"],
)  # fmt: skip
async def test_xpath_that_cannot_be_used_is_refused(expression: str) -> None:
    with pytest.raises(SelectorInvalid):
        by_xpath(await at_home(), expression)


PIECES = st.sampled_from(
    ["/", "//", "*", "[", "]", "(", ")", "@text", "@", "=", "!=", "<", "'Skip'", "1", "9" * 400, "and", "or", "|", "::",
     "..", ".", "last()", "position()", "contains(", "not(", "text()", "count(", "concat(", "string-length(",
     "parent::", "ancestor::", "android.widget.Button", ",", "translate("]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12))
@settings(deadline=None)
async def test_any_xpath_finds_or_is_refused(pieces: list[str]) -> None:
    phone = await at_home()
    try:
        found = by_xpath(phone, " ".join(pieces))
    except SelectorInvalid:
        return
    assert isinstance(found, list)


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ('new UiSelector().text("Skip")', ["Skip"]),
        ('text("Skip")', ["Skip"]),
        ('.textContains("lang")', ["ADD OR EDIT LANGUAGES"]),
        ('new UiSelector().className("android.widget.Button").instance(1)', ["Skip"]),
        ('new UiSelector().resourceId("title")', ["Wikipedia"]),
        ('new UiSelector().textMatches("Ver.*").enabled(true)', ["Version 1.0"]),
        ('new UiSelector().textStartsWith("wiki")', ["Wikipedia"]),
        ('className("android.widget.LinearLayout").childSelector(new UiSelector().text("Skip"))', ["Skip"]),
        ('new UiSelector().text("Skip").fromParent(new UiSelector().text("Wikipedia"))', ["Wikipedia"]),
        ('text("Skip"); text("Wikipedia")', ["Skip", "Wikipedia"]),
        ('new UiSelector().text("say \\"hi\\"")', []),
        ('new UiSelector().className("android.widget.Button").instance(-1)', []),
    ],
)  # fmt: skip
async def test_uiselector_finds(expression: str, found: list[str]) -> None:
    assert by_uiselector(await at_home(), expression) == found


@pytest.mark.parametrize(
    "expression",
    ["", "new", "new UiSelector(", 'text("open', "text(1)", "frobnicate(true)", 'new UiThing().text("x")',
     "new UiSelector().instance(" + "9" * 5000 + ")", 'textMatches("(")', "a" * 20_000, 'text("x") text("y")',
     "childSelector(" * 30, "new UiScrollable(new UiSelector()).flingForward()"],
)  # fmt: skip
async def test_uiselector_that_cannot_be_used_is_refused(expression: str) -> None:
    with pytest.raises(SelectorInvalid):
        by_uiselector(await at_home(), expression)


JAVA = st.sampled_from(
    ["new", "UiSelector", "UiScrollable", "(", ")", ".", ";", ",", "text", '"Skip"', "instance", "1", "-1", "9" * 5000,
     "true", "childSelector", "scrollIntoView", "clickable", "enabled", "index"]
)  # fmt: skip


@given(st.lists(JAVA, max_size=14))
@settings(deadline=None)
async def test_any_uiselector_finds_or_is_refused(pieces: list[str]) -> None:
    phone = await at_home()
    try:
        found = by_uiselector(phone, " ".join(pieces))
    except SelectorInvalid:
        return
    assert isinstance(found, list)


async def test_scrollable_brings_into_view_what_is_below() -> None:
    phone = await at_home()
    for name in ("Skip", "Search Wikipedia", "Playwright (software)"):
        (node,) = uiselector.find(phone, f'text("{name}")', build_tree(phone))
        assert isinstance(node.target, int)
        phone.tap_element(node.target)
    assert by_uiselector(phone, 'text("References")') == []
    expression = (
        'new UiScrollable(new UiSelector().scrollable(true)).scrollIntoView(new UiSelector().text("References"))'
    )
    assert by_uiselector(phone, expression) == ["References"]
    assert by_uiselector(phone, 'text("References")') == ["References"]
