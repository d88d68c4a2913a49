"""What finding a node can go wrong with."""


class SelectorInvalid(Exception):
    """A selector that cannot be read; the message says why."""


class SelectorUnsupported(SelectorInvalid):
    """A selector that a real phone may understand and this one does not."""
