"""The screens of the app that a phone shows, read from a TOML file (``default_screens.toml`` says how it looks)."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from agent.virtual_phone.errors import ScreensInvalid

DEFAULT_FILE = Path(__file__).with_name("default_screens.toml")
MAX_ELEMENTS_PER_SCREEN = 500
MAX_DELAY_SECONDS = 3600

CLASS_NAMES = {
    "text": "android.widget.TextView",
    "button": "android.widget.Button",
    "image": "android.widget.ImageView",
    "input": "android.widget.EditText",
    "switch": "android.widget.Switch",
}
_ELEMENT_KEYS: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "text": (str,),
    "description": (str,),
    "class": (str,),
    "hint": (str,),
    "goto": (str,),
    "back": (bool,),
    "enabled": (bool,),
    "delay": (int, float),
    "remember": (bool,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementSpec:
    """One element of a screen, as its file describes it."""

    id: str
    text: str
    description: str
    class_name: str
    hint: str
    goto: str | None
    goes_back: bool
    is_enabled: bool
    delay_seconds: float
    is_remembered: bool

    @property
    def is_input(self) -> bool:
        """Whether text can be typed into it."""
        return self.class_name == CLASS_NAMES["input"]

    @property
    def is_switch(self) -> bool:
        """Whether a tap turns it on and off."""
        return self.class_name == CLASS_NAMES["switch"]

    @property
    def is_clickable(self) -> bool:
        """Whether a tap does something."""
        return self.goto is not None or self.goes_back or self.is_input or self.is_switch


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenSet:
    """The screens of an app by name, and the one that a fresh launch shows."""

    start: str
    screens: dict[str, tuple[ElementSpec, ...]]


def load_screens(path: Path = DEFAULT_FILE) -> ScreenSet:
    """Read a screens file; raises `ScreensInvalid` with the place and the reason."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScreensInvalid(f"{path}: {error}") from error
    try:
        return parse_screens(text)
    except ScreensInvalid as error:
        raise ScreensInvalid(f"{path}: {error}") from error


def parse_screens(text: str) -> ScreenSet:
    """Return the screens that a TOML text describes; raises `ScreensInvalid`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScreensInvalid(str(error)) from error
    start, tables = document.pop("start", None), document.pop("screens", None)
    if document:
        raise ScreensInvalid(f"unknown key {next(iter(document))!r}")
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ScreensInvalid("there must be tables [screens.NAME]")
    screens = {name: _screen(name, table) for name, table in tables.items()}
    if start not in screens:
        raise ScreensInvalid(f"start is {start!r}, which is no screen")
    for name, elements in screens.items():
        for element in elements:
            if element.goto is not None and element.goto not in screens:
                raise ScreensInvalid(f"screen {name}: goto {element.goto!r} is no screen")
    return ScreenSet(start=start, screens=screens)


def _screen(name: str, table: dict[str, object]) -> tuple[ElementSpec, ...]:
    elements = table.get("elements")
    if set(table) != {"elements"} or not isinstance(elements, list):
        raise ScreensInvalid(f"screen {name}: it has an array 'elements' and nothing else")
    if len(elements) > MAX_ELEMENTS_PER_SCREEN:
        raise ScreensInvalid(f"screen {name}: more than {MAX_ELEMENTS_PER_SCREEN} elements")
    return tuple(_element(f"screen {name}, element {number}", entry) for number, entry in enumerate(elements, start=1))


def _element(where: str, entry: object) -> ElementSpec:
    if not isinstance(entry, dict):
        raise ScreensInvalid(f"{where}: not a table")
    for key, value in entry.items():
        expected = _ELEMENT_KEYS.get(key)
        if expected is None:
            raise ScreensInvalid(f"{where}: unknown key {key!r}")
        is_wrong_flag = isinstance(value, bool) and bool not in expected  # Python takes True for a number
        if not isinstance(value, expected) or is_wrong_flag:
            raise ScreensInvalid(f"{where}: {key} cannot be {value!r}")
    if not {"id", "text", "description"} & set(entry):
        raise ScreensInvalid(f"{where}: needs an id, a text or a description")
    class_name: str = entry.get("class", "text")
    if "." not in class_name and class_name not in CLASS_NAMES:
        raise ScreensInvalid(f"{where}: unknown class {class_name!r}")
    delay = float(entry.get("delay", 0))
    if not 0 <= delay <= MAX_DELAY_SECONDS:
        raise ScreensInvalid(f"{where}: delay must be from 0 to {MAX_DELAY_SECONDS} seconds, not {delay}")
    return ElementSpec(
        id=entry.get("id", ""),
        text=entry.get("text", ""),
        description=entry.get("description", ""),
        class_name=CLASS_NAMES.get(class_name, class_name),
        hint=entry.get("hint", ""),
        goto=entry.get("goto"),
        goes_back=entry.get("back", False),
        is_enabled=entry.get("enabled", True),
        delay_seconds=delay,
        is_remembered=entry.get("remember", False),
    )
