"""structlog as services configure it in production, after its own page on performance, with all output thrown away.

What an event costs is then the making of it and one write, to /dev/null.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

_TEXT: Final = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open as long as the process
_BYTES: Final = Path(os.devnull).open("wb")  # noqa: SIM115 - as above

ORJSON: Final = "structlog, orjson to bytes"
RENDERERS: Final[dict[str, tuple[Any, Any]]] = {
    ORJSON: (structlog.processors.JSONRenderer(orjson.dumps), structlog.BytesLoggerFactory(_BYTES)),
    "structlog, JSONRenderer": (structlog.processors.JSONRenderer(), structlog.WriteLoggerFactory(_TEXT)),
    "structlog, ConsoleRenderer": (structlog.dev.ConsoleRenderer(), structlog.WriteLoggerFactory(_TEXT)),
}


def configure(renderer: str = ORJSON, level: int = logging.INFO) -> None:
    """Configure structlog."""
    rendered_by, factory = RENDERERS[renderer]
    structlog.configure(
        cache_logger_on_first_use=True,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            rendered_by,
        ],
        logger_factory=factory,
    )


@contextmanager
def configured(renderer: str = ORJSON, level: int = logging.INFO) -> Iterator[None]:
    """Configure structlog for a while."""
    configure(renderer, level)
    try:
        yield
    finally:
        structlog.reset_defaults()


@contextmanager
def stdlib_alone(level: int = logging.WARNING) -> Iterator[None]:
    """Let the events of a host that has not configured structlog go through the standard library's logging."""
    logger, handler = logging.getLogger("authz403"), logging.StreamHandler(_TEXT)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
