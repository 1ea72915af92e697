"""Log lines of a replica: text or JSON, on its standard error, where Ray keeps them; one line for each request at level INFO.

A line holds ids, codes and times; what users wrote is in it only with `serving.log_texts`. Does not touch Ray Serve's own loggers.
"""

import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

import orjson

from matinee.settings.serving import ServingSettings

OURS = ("serve", "matinee")
THEIRS = ("opentelemetry", "s3fs")
"""Libraries whose troubles are ours to tell."""

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

_QUIET = frozenset({"livez", "readyz"})


def configure(settings: ServingSettings, part: str, stream: TextIO | None = None) -> None:
    """From now on the lines of this process look as the settings say."""
    # Not `sys.stderr`, which Serve may have put into its own log, line by line.
    handler = logging.StreamHandler(stream or sys.__stderr__)
    formatter = JsonFormatter if settings.log_format == "json" else TextFormatter
    handler.setFormatter(formatter(part, texts=settings.log_texts))
    for names, least in ((OURS, logging.DEBUG), (THEIRS, logging.WARNING)):
        for name in names:
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(max(least, logging.getLevelNamesMapping()[settings.log_level]))


def request(logger: logging.Logger, status: int, fields: Mapping[str, object]) -> None:
    """The line of one request: failures of the server are warnings (a full one is counted, and would flood the log), probes DEBUG.

    A response that does not show the reasons of its errors is a failure too: they are here or nowhere.
    """
    failed = bool(fields.get("reasons")) or (status >= 500 and fields["outcome"] != "overloaded")
    level = logging.WARNING if failed else logging.DEBUG if fields["endpoint"] in _QUIET else logging.INFO
    if logger.isEnabledFor(level):
        logger.log(level, "request", extra={"fields": {key: value for key, value in fields.items() if value not in (None, [], {})}})


class _Formatter(logging.Formatter):
    """Without `texts` a traceback has its frames and the kinds of its exceptions: their messages may hold what a user wrote."""

    def __init__(self, part: str, *, texts: bool, fmt: str | None = None) -> None:
        super().__init__(fmt)
        self._part, self._texts = part, texts

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802  the name is logging's
        return super().formatException(ei) if self._texts else _frames(ei[1])


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "part": self._part,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class TextFormatter(_Formatter):
    """The same, to be read by people: `key=value` after the message."""

    def __init__(self, part: str, *, texts: bool) -> None:
        super().__init__(part, texts=texts, fmt=f"%(asctime)s %(levelname)s {part} %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the name is logging's
        fields = getattr(record, "fields", {})
        return " ".join([super().formatMessage(record), *(f"{key}={_plain(value)}" for key, value in fields.items())])


def _frames(error: BaseException | None) -> str:
    """Where it broke, and what led to it, the last one last."""
    chain: list[str] = []
    while error is not None:
        frames = "".join(traceback.format_tb(error.__traceback__))
        chain.append(f"Traceback (most recent call last):\n{frames}{type(error).__qualname__} (its message: serving.log_texts)")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\n".join(reversed(chain))


def _plain(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() and " " not in value else orjson.dumps(value, default=str).decode()
