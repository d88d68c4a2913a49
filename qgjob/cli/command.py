"""Commands that take the options of the whole program too: `qgjob jobs list --coordinator lab:50051`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from typer.core import TyperOption

from qgjob.cli.globals import GLOBALS
from qgjob.cli.terminal import ReaderGone
from qgjob.parameters import PlainCommand

if TYPE_CHECKING:
    from typer import CallbackParam, Context


def _remember(name: str) -> Callable[[Context, CallbackParam, Any], None]:
    def remember(context: Context, option: CallbackParam, value: object) -> None:
        if value:
            setattr(GLOBALS, name, value)

    return remember


TEXTS = ("coordinator", "profile", "tls_ca", "tls_cert", "tls_key", "token_file")
FLAGS = (("--insecure", "is_insecure"), ("--debug", "is_debugging"))


def _shared(option: str, name: str, **settings: Any) -> TyperOption:  # noqa: ANN401 - handed through to Typer
    return TyperOption(param_decls=[option], hidden=True, expose_value=False, callback=_remember(name), **settings)


class Command(PlainCommand):
    """A command. What stands after it wins over what stands before it."""

    def __init__(self, name: str | None, **settings: Any) -> None:  # noqa: ANN401 - handed through to Typer
        """Add the shared options, unseen in the command's own help: `qgjob --help` has them."""
        texts = [_shared(f"--{name.replace('_', '-')}", name) for name in TEXTS]
        flags = [_shared(option, name, is_flag=True, default=False) for option, name in FLAGS]
        shared = [*texts, *flags]
        super().__init__(name, **{**settings, "params": [*(settings.get("params") or []), *shared]})

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - as Typer has it
        """Run the command.

        Raises:
            ReaderGone: Nobody reads what it prints any more.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error
