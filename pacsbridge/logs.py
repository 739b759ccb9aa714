"""Logging: one line for each event, as JSON or for a person at a terminal. No patient data at info or above."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

    from pacsbridge.config import ServerConfig

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
#: Libraries whose lines could name patients or repeat what we say in words of our own.
_QUIET = {
    "pynetdicom": logging.CRITICAL,
    "pydicom": logging.CRITICAL,
    "py.warnings": logging.CRITICAL,
    "aiohttp.access": logging.CRITICAL,
    "aiohttp.server": logging.CRITICAL,  # it repeats a request line that it can't read; our middleware logs the rest
    "asyncio": logging.WARNING,
    "PIL": logging.WARNING,
}


def set_up_logging(config: ServerConfig) -> None:
    """Send every log line, ours and those of libraries, to standard error in one form."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    as_console = config.log_format == "console" or (config.log_format == "auto" and sys.stderr.isatty())
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if as_console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.captureWarnings(capture=True)  # pydicom's repeat values of patients
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(_LEVELS[config.log_level])
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
