"""How the core API says no."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """An answer that is an error: HTTP status, machine-readable word, what is wrong. Never a value of the request."""

    def __init__(
        self, status: int, code: str, message: str, details: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        self.status, self.code, self.message = status, code, message
        self.details, self.headers = details, headers
        super().__init__(f"{code}: {message}")
