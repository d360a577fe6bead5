"""The migration flow's own functions with no Prefect around them: `await migrate(…)`.

As a process, with the exit codes of `phase2 run`: `python -m tests.without_prefect run --from A --to B`.
"""

from __future__ import annotations

import sys
from datetime import date

from bridge import steps
from flows import __main__ as command
from flows import migration


async def no_artifacts(_: steps.Outcome) -> None:
    """In the place of `publish`."""


_BARE = {"run_step": migration.run_step.fn, "conclude": migration.conclude.fn, "publish": no_artifacts}


async def migrate(from_batch: migration.Code, to_batch: migration.Code, as_of: date | None, **options: object) -> None:
    """`migration_flow`, in this process."""
    kept = {name: getattr(migration, name) for name in _BARE}
    try:
        for name, function in _BARE.items():
            setattr(migration, name, function)
        await migration.migration_flow.fn(from_batch, to_batch, as_of, **options)
    finally:
        for name, function in kept.items():
            setattr(migration, name, function)


if __name__ == "__main__":
    command.migration_flow = migrate  # type: ignore[assignment]
    sys.exit(command.main())
