"""How the three programs name the values that they take: `--limit N` in help, bounds as words in a refusal."""

from __future__ import annotations

from typing import Any, ClassVar

# Typer carries its own click and shows only part of it; the pinned range of releases has these names.
from typer._click.core import Context, Parameter
from typer._click.types import FLOAT, INT, FloatRange, IntRange, ParamType
from typer.core import TyperCommand

SMALL = 65_535
"""Bounds up to here say something to whoever reads help; larger ones only keep numbers in what holds them."""


class Bounded(ParamType):
    """A number with bounds, which are told as numbers and not as an inequality."""

    name = "number"

    def __init__(self, bounds: IntRange | FloatRange) -> None:
        self._plain = INT if isinstance(bounds, IntRange) else FLOAT
        self._least, self._most = bounds.min, bounds.max

    @property
    def placeholder(self) -> str:
        """What stands for the number in help."""
        is_telling = self._least is not None and self._most is not None and self._most <= SMALL
        return f"{self._least}-{self._most}" if is_telling else "N"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> Any:  # noqa: ANN401 - as click has it
        """Return the number that was typed."""
        number = self._plain.convert(value, param, ctx)
        if self._least is not None and number < self._least:
            self.fail(f"{number} is less than {self._least}", param, ctx)
        if self._most is not None and number > self._most:
            self.fail(f"{number} is more than {self._most}", param, ctx)
        return number


class PlainCommand(TyperCommand):
    """A command whose help has no names of types and no braces."""

    PLACEHOLDERS: ClassVar = {"int": "N", "float": "N", "str": "TEXT", "path": "PATH"}

    def __init__(self, name: str | None, **settings: Any) -> None:  # noqa: ANN401 - handed through to Typer
        super().__init__(name, **settings)
        for param in self.params:
            if isinstance(param.type, IntRange | FloatRange):
                param.type = Bounded(param.type)
            if param.metavar is None:
                param.metavar = self._placeholder(param)

    def _placeholder(self, param: Any) -> str | None:  # noqa: ANN401 - an option or an argument, which click keeps apart
        if param.param_type_name == "argument":
            return str(param.name).upper()
        if isinstance(param.type, Bounded):
            return param.type.placeholder
        return self.PLACEHOLDERS.get(param.type.name)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401 - as click has it
        """Return the line of usage in pieces, where Typer has braces around what must be given."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]
