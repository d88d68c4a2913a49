"""Statements whose text is made once: to make it anew with every commit takes longer than to run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, CursorResult, Dialect
from sqlalchemy.sql.compiler import SQLCompiler

Values = dict[str, Any]


class Statement:
    """A statement for the connections of one driver, each run of which brings values of the same names."""

    def __init__(self, dialect: Dialect, statement: Any) -> None:  # noqa: ANN401 - any executable
        """Take a statement that does not expand with its values, as IN does."""
        self._dialect = dialect
        self._statement = statement
        self._text = ""
        self._constants: Values = {}
        """What stands in the statement itself."""
        self._take: Callable[[Values], Any] = dict

    def run(self, connection: Connection, values: Values) -> CursorResult[Any]:
        """Run it once."""
        self._compile(values)
        return connection.exec_driver_sql(self._text, self._take(self._constants | values))

    def run_all(self, connection: Connection, values: Sequence[Values]) -> None:
        """Run it with each of many values, if there are any."""
        if not values:
            return
        self._compile(values[0])
        whole = (self._constants | one for one in values) if self._constants else values
        connection.exec_driver_sql(self._text, [self._take(one) for one in whole])

    def _compile(self, values: Values) -> None:
        if self._text:
            return
        compiled = self._statement.compile(dialect=self._dialect, column_keys=list(values) or None)
        assert isinstance(compiled, SQLCompiler)
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}
        if compiled.positional:
            self._take = _in_order(compiled.positiontup or [])
        self._text = str(compiled)


def _in_order(names: Sequence[str]) -> Callable[[Values], Any]:
    """Return what makes a tuple of values."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)
