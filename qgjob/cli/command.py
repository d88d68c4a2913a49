"""Commands that take the options of the whole program too: `qgjob jobs list --coordinator lab:50051`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperOption

from qgjob.cli.session import GLOBALS

if TYPE_CHECKING:
    from typer import CallbackParam, Context


def _remember(name: str) -> Callable[[Context, CallbackParam, Any], None]:
    def remember(context: Context, option: CallbackParam, value: object) -> None:
        if value:
            setattr(GLOBALS, name, value)

    return remember


class Command(TyperCommand):
    """A command. What stands after it wins over what stands before it."""

    def __init__(self, name: str | None, **settings: Any) -> None:  # noqa: ANN401 - handed through to Typer
        """Add the shared options, unseen in the command's own help: `qgjob --help` has them."""
        shared: list[Any] = [
            TyperOption(
                param_decls=["--coordinator"], hidden=True, expose_value=False, callback=_remember("coordinator")
            ),
            TyperOption(param_decls=["--profile"], hidden=True, expose_value=False, callback=_remember("profile")),
            TyperOption(
                param_decls=["--debug"],
                is_flag=True,
                default=False,
                hidden=True,
                expose_value=False,
                callback=_remember("is_debugging"),
            ),
        ]
        super().__init__(name, **{**settings, "params": [*(settings.get("params") or []), *shared]})
