"""Reads the options of Android's commands, which are not those of getopt."""

from collections.abc import Collection
from dataclasses import dataclass, field


class OptionUnknown(Exception):
    """An option that the command does not have, or one without its value."""

    def __init__(self, option: str) -> None:
        super().__init__(option)
        self.option = option


@dataclass(slots=True, kw_only=True)
class Options:
    """The flags that were given, the values of those that take one, and the rest."""

    flags: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)


def read_options(arguments: list[str], *, flags: Collection[str] = (), valued: Collection[str] = ()) -> Options:
    """Sort arguments into options and the rest; raises `OptionUnknown`."""
    options = Options()
    remaining = iter(arguments)
    for argument in remaining:
        if argument in valued:
            value = next(remaining, None)
            if value is None:
                raise OptionUnknown(argument)
            options.values[argument] = value
        elif argument in flags:
            options.flags.add(argument)
        elif argument.startswith("-") and len(argument) > 1:
            raise OptionUnknown(argument)
        else:
            options.rest.append(argument)
    return options
