"""How the processes of the core API log: one line of JSON a record, on standard error."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson


class JsonLines(logging.Formatter):
    """A record as one line of JSON: at (UTC), level, logger, message, and what `extra={"said": …}` holds."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "said", {}),
        }
        return orjson.dumps(line, option=orjson.OPT_UTC_Z, default=str).decode()


def configure_logging(level: int = logging.INFO) -> None:
    """JSON lines on standard error for this process; uvicorn's own access log is off, ours says more."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"
