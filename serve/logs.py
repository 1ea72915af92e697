"""Log lines of a replica: text or JSON, on its standard error, where Ray keeps them; one line for each request at level INFO.

A line holds ids, codes and times; what users wrote is in it only with `serving.log_texts`. Does not touch Ray Serve's own loggers.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

from matinee.settings_serving import ServingSettings

OURS = ("serve", "matinee")
THEIRS = ("opentelemetry", "s3fs")
"""Libraries whose troubles are ours to tell."""

_QUIET = frozenset({"livez", "readyz"})


def configure(settings: ServingSettings, part: str, stream: TextIO | None = None) -> None:
    """From now on the lines of this process look as the settings say."""
    # Not `sys.stderr`, which Serve may have put into its own log, line by line.
    handler = logging.StreamHandler(stream or sys.__stderr__)
    handler.setFormatter(JsonFormatter(part) if settings.log_format == "json" else TextFormatter(part))
    for names, least in ((OURS, logging.DEBUG), (THEIRS, logging.WARNING)):
        for name in names:
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(max(least, logging.getLevelNamesMapping()[settings.log_level]))


def request(logger: logging.Logger, status: int, fields: dict[str, Any]) -> None:
    """The line of one request: failures of the server are warnings (a full one is counted, and would flood the log), probes DEBUG."""
    failed = status >= 500 and fields["outcome"] != "overloaded"
    level = logging.WARNING if failed else logging.DEBUG if fields["endpoint"] in _QUIET else logging.INFO
    if logger.isEnabledFor(level):
        logger.log(level, "request", extra={"fields": {key: value for key, value in fields.items() if value not in (None, [], {})}})


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

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


class TextFormatter(logging.Formatter):
    """The same, to be read by people: `key=value` after the message."""

    def __init__(self, part: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {part} %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the name is logging's
        fields = getattr(record, "fields", {})
        return " ".join([super().formatMessage(record), *(f"{key}={_plain(value)}" for key, value in fields.items())])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and value.isprintable() and " " not in value else orjson.dumps(value, default=str).decode()
