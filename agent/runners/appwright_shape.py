"""Which shape an AppWright package has: its releases differ in what a host with several devices must keep from it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What some releases have in common."""

    name: str
    versions: tuple[str, ...]
    """Those that were looked at; a release between two of them may differ."""
    entry_points: Mapping[str, tuple[str, ...]]
    """Files of the package's `dist`, each with the functions and classes that are patched there."""


class ShapeUnknown(Exception):
    """The package is none that can be run; the sentence says what to do."""


def _read_shapes() -> tuple[Shape, ...]:
    # The wrapper inside Node reads the same file, so that what is checked here is what is patched there.
    told = json.loads((Path(__file__).with_name("appwright_node") / "shapes.json").read_bytes())
    return tuple(
        Shape(
            name=name,
            versions=tuple(shape["versions"]),
            entry_points={file: tuple(names) for file, names in shape["entry_points"].items()},
        )
        for name, shape in told.items()
    )


SHAPES = _read_shapes()


def shape_of(package: Path, version: str) -> Shape:
    """Return the shape of an AppWright package, after a look whether it holds all that is patched.

    Raises:
        ShapeUnknown: It is of a version that was never looked at, or lacks something.
    """
    shape = next((shape for shape in SHAPES if version in shape.versions), None)
    if shape is None:
        known = ", ".join(known for shape in SHAPES for known in shape.versions)
        raise ShapeUnknown(f"AppWright {version} in {package} is not supported; this release runs {known}")
    for file, names in shape.entry_points.items():
        missing = _missing(package / "dist" / file, names)
        if missing is not None:
            raise ShapeUnknown(
                f"AppWright {version} in {package} is not as it was released: {missing}; install it anew with `npm ci`,"
                " or pin a release that is"
            )
    return shape


def _missing(path: Path, names: tuple[str, ...]) -> str | None:
    """Say what a compiled module lacks, None if nothing."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"there is no dist/{path.parent.name}/{path.name}"
    missing = next((name for name in names if not re.search(rf"\bexports\.{name}\s*=", text)), None)
    return None if missing is None else f"{path.name} has no {missing}"
