"""The UiAutomator2 server: what Appium's driver talks to, over HTTP through a forwarded port.

``node`` is what the display shows as a tree, ``uiselector`` and ``xpath`` find nodes in it, ``gestures`` act on it,
the ``*_routes`` are the commands of a ``session``, ``router`` finds them and ``server`` is its HTTP.
"""
