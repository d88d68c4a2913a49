"""How the diagnostics of coordinators and agents look: for people on a terminal, one line for each event elsewhere."""

from __future__ import annotations

import logging
import os
import sys

import structlog


def set_up_diagnostics() -> None:
    """Let them go to stderr; what libraries warn of as well."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    is_terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ)
        if is_terminal
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event", "story"], drop_missing=True)
    )
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _drop_empty,
            *(() if is_terminal else (structlog.processors.format_exc_info,)),
            renderer,
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _drop_empty(_logger: object, _name: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {name: value for name, value in fields.items() if value is not None}
