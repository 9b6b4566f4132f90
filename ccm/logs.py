"""Structured logs on standard error: one event in the past tense, facts as keys."""

from __future__ import annotations

import logging
import sys

import structlog

from ccm import errors


def configure(level: str = "info") -> None:
    """Send logs to standard error as key=value lines. level: debug | info | warning | error.

    Raises: ConfigError for another level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise errors.ConfigError(
            f"--log-level must be debug, info, warning or error, not {level!r}"
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["time", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries below (aiohttp, httpx2, asyncio) speak only when something is wrong.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
