"""Touches on the display."""

from agent.virtual_phone.app import CONTENT_BOTTOM, CONTENT_TOP
from agent.virtual_phone.phone import Phone
from agent.virtual_phone.screenshot import draw
from agent.virtual_phone.uiautomator.node import Node, build_tree

TAP_TOLERANCE_PIXELS = 24
CONTENT_HEIGHT = CONTENT_BOTTOM - CONTENT_TOP


def tap(phone: Phone, node: Node) -> None:
    """Tap a node: an element of the app, an icon of the launcher, or something that does nothing."""
    if isinstance(node.target, int):
        phone.tap_element(node.target)
    elif node.target is not None:
        phone.tap_icon(node.target)


def tap_at(phone: Phone, x: int, y: int) -> None:
    """Tap a point of the display."""
    hit = [node for node in build_tree(phone).walk() if node.bounds.contains(x, y)]
    if hit:
        tap(phone, hit[-1])


def swipe(phone: Phone, pixels: int) -> bool:
    """Move the content up by so many pixels (down if negative); return whether it can go on in that direction."""
    app = phone.front
    if app is None:
        return False
    app.scroll_by(pixels)
    return app.scroll_offset > 0 if pixels < 0 else app.scroll_offset < app.scroll_range


def screenshot(phone: Phone) -> bytes:
    """Return a PNG of the display, in which each thing that can be seen is a box."""
    return draw([node.bounds for node in build_tree(phone).walk() if node.target is not None])
