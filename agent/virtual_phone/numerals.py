"""Whole numbers in what others wrote."""

MAX_DIGITS = 18


def whole_number(text: str) -> int | None:
    """Return the number that a text of ASCII digits stands for; None for any other text, and for absurd lengths."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else None
