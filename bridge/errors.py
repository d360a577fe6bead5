"""The two ways in which work ends early: it could not run, or a gate said no."""

import re

# what Postgres adds to a message and what may hold a row's values; dbt repeats it
_VALUES = re.compile(r"\s*(DETAIL|CONTEXT|HINT|LINE \d+|QUERY):.*?(?=\n\s*compiled code at|\Z)", re.DOTALL)


def plain(error: BaseException | str, limit: int = 400) -> str:
    """An error in one line without the details that may quote a row (names, mails, phones)."""
    diagnosis = getattr(error, "diag", None)
    text = getattr(diagnosis, "message_primary", None) or str(error)
    return " ".join(_VALUES.sub(" ", text).split())[:limit]


class CouldNotRun(Exception):
    """Something outside the rules is wrong (exit code 2): what, where, and what to do about it."""

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        self.what, self.where, self.todo = what, where, todo
        super().__init__(what + (f" [{where}]" if where else "") + (f" {todo}" if todo else ""))


class GateFailed(Exception):
    """A batch is not PASS (exit code 1); `blocked_by` holds the ids of the gates or doors that say so."""

    def __init__(self, batch: str, blocked_by: list[str], report: str | None = None) -> None:
        self.batch, self.blocked_by, self.report = batch, blocked_by, report
        lines = len(blocked_by) > 1 and any(" " in reason for reason in blocked_by)  # sentences, not ids
        reasons = "".join(f"\n  {reason}" for reason in blocked_by) if lines else " " + ", ".join(blocked_by)
        super().__init__(f"batch {batch} is on hold:{reasons}" + (f"; see {report}" if report else ""))


class Stopped(GateFailed):
    """Somebody has stopped the migration, or its freeze window is over (exit code 1); `why` says who, when and why.

    `batch` may be `retention`.
    """

    def __init__(self, batch: str, why: str, todo: str, *, by: str = "stop") -> None:
        super().__init__(batch, [by])
        self.why = why
        self.args = (f"{f'batch {batch}' if len(batch) == 1 else batch} is on hold: {why}. {todo}",)


class Tainted(GateFailed):
    """A batch is not run again as it was when a hard gate of it failed (exit code 1)."""
