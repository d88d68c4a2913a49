"""An app that is running on the phone: which screen it shows, what was typed into it, how far it is scrolled."""

from collections.abc import Callable
from dataclasses import dataclass

from agent.virtual_phone.packages import InstalledPackage
from agent.virtual_phone.screens import ElementSpec, ScreenSet

DISPLAY_WIDTH = 1080
DISPLAY_HEIGHT = 2340
STATUS_BAR_HEIGHT = 66
NAVIGATION_BAR_HEIGHT = 132
CONTENT_TOP = STATUS_BAR_HEIGHT
CONTENT_BOTTOM = DISPLAY_HEIGHT - NAVIGATION_BAR_HEIGHT
ROW_HEIGHT = 180
ELEMENT_HEIGHT = 140
MARGIN = 48
SWITCHED_ON = "on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """A rectangle on the display, in pixels; right and bottom are just outside."""

    left: int
    top: int
    right: int
    bottom: int

    def __str__(self) -> str:
        return f"[{self.left},{self.top}][{self.right},{self.bottom}]"

    @property
    def center(self) -> tuple[int, int]:
        """The point in the middle."""
        return (self.left + self.right) // 2, (self.top + self.bottom) // 2

    def contains(self, x: int, y: int) -> bool:
        """Whether a point is inside."""
        return self.left <= x < self.right and self.top <= y < self.bottom


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementView:
    """An element as it is on the display now."""

    index: int
    spec: ElementSpec
    text: str
    is_checked: bool
    is_focused: bool
    bounds: Bounds


class App:
    """A running app. A new process starts at the first screen; what is to be remembered is in the package's data."""

    def __init__(
        self,
        package: InstalledPackage,
        activity: str,
        screens: ScreenSet,
        *,
        clock: Callable[[], float],
        placeholders: dict[str, str],
    ) -> None:
        """Show the first screen.

        Args:
            package: the app's installed package.
            activity: the complete name of the activity that was started.
            screens: what the app shows.
            clock: a monotonic clock, in seconds.
            placeholders: what the words in braces stand for in texts.
        """
        self.package = package
        self.activity = activity
        self.visit = 0
        self.scroll_offset = 0
        self.focus: int | None = None
        self._screens = screens
        self._clock = clock
        self._placeholders = placeholders
        self._typed: dict[str, str] = {}
        self._history: list[str] = []
        self._screen = screens.start
        self._shown_at = clock()

    @property
    def screen(self) -> str:
        """The name of the screen that is shown."""
        return self._screen

    def views(self) -> list[ElementView]:
        """Return the elements that can be seen now, from top to bottom."""
        elapsed = self._clock() - self._shown_at
        shown = []
        for index, spec in enumerate(self._elements):
            bounds = self._bounds(index)
            is_inside = bounds.top >= CONTENT_TOP and bounds.bottom <= CONTENT_BOTTOM
            if is_inside and elapsed >= spec.delay_seconds:
                shown.append(self._view(index, spec, bounds))
        return shown

    def tap(self, index: int) -> None:
        """Tap the element with this index on the screen."""
        spec = self._elements[index]
        if not spec.is_enabled:
            return
        if spec.is_input:
            self.focus = index
        elif spec.is_switch:
            self._keep(index, "" if self._kept(index) else SWITCHED_ON)
        if spec.goes_back:
            self.go_back()
        elif spec.goto is not None:
            self._history.append(self._screen)
            self._show(spec.goto)

    def type_text(self, text: str, *, index: int | None = None, replaces: bool = False) -> bool:
        """Type into an input, or into the one that has the focus; False if there is none."""
        target = self.focus if index is None else index
        if target is None or not self._elements[target].is_input or not self._elements[target].is_enabled:
            return False
        self.focus = target
        before = "" if replaces else self._kept(target)
        self._keep(target, before + text)
        return True

    def erase(self) -> None:
        """Delete the last character of the input that has the focus."""
        if self.focus is not None:
            self._keep(self.focus, self._kept(self.focus)[:-1])

    def go_back(self) -> bool:
        """Return to the screen before; False if there is none and the app is left."""
        if not self._history:
            return False
        self._show(self._history.pop())
        return True

    def scroll_by(self, pixels: int) -> bool:
        """Move the content up by so many pixels (down if negative); False if it was at its end already."""
        before = self.scroll_offset
        self.scroll_offset = min(max(0, before + pixels), self.scroll_range)
        return self.scroll_offset != before

    @property
    def scroll_range(self) -> int:
        """How far the screen can be scrolled, in pixels; 0 if everything fits."""
        return max(0, len(self._elements) * ROW_HEIGHT - (CONTENT_BOTTOM - CONTENT_TOP))

    @property
    def _elements(self) -> tuple[ElementSpec, ...]:
        return self._screens.screens[self._screen]

    def _show(self, screen: str) -> None:
        self._screen = screen
        self._shown_at = self._clock()
        self.visit += 1
        self.scroll_offset = 0
        self.focus = None

    def _bounds(self, index: int) -> Bounds:
        top = CONTENT_TOP + index * ROW_HEIGHT - self.scroll_offset + (ROW_HEIGHT - ELEMENT_HEIGHT) // 2
        return Bounds(left=MARGIN, top=top, right=DISPLAY_WIDTH - MARGIN, bottom=top + ELEMENT_HEIGHT)

    def _view(self, index: int, spec: ElementSpec, bounds: Bounds) -> ElementView:
        kept = self._kept(index)
        text = (kept or spec.hint) if spec.is_input else self._fill(spec.text)
        return ElementView(
            index=index,
            spec=spec,
            text=text,
            is_checked=spec.is_switch and kept == SWITCHED_ON,
            is_focused=self.focus == index,
            bounds=bounds,
        )

    def _fill(self, text: str) -> str:
        for name, value in self._placeholders.items():
            text = text.replace("{" + name + "}", value)
        return text

    def _store(self, index: int) -> dict[str, str]:
        return self.package.data if self._elements[index].is_remembered else self._typed

    def _key(self, index: int) -> str:
        return f"{self._screen}/{index}"

    def _kept(self, index: int) -> str:
        default = self._fill(self._elements[index].text) if self._elements[index].is_input else ""
        return self._store(index).get(self._key(index), default)

    def _keep(self, index: int, value: str) -> None:
        self._store(index)[self._key(index)] = value
