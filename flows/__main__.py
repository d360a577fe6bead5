"""`python -m flows run …`: the flows from a shell, with the exit codes of `phase2` (which calls this)."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from datetime import date

from bridge.errors import CouldNotRun, GateFailed, plain
from flows.migration import migration_flow


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flows", description=__doc__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="run batches in their order")
    run.add_argument("--from", dest="from_batch", default="A")
    run.add_argument("--to", dest="to_batch", default="E")
    run.add_argument("--as-of", type=date.fromisoformat)
    run.add_argument("--full", action="store_true")
    run.add_argument("--on-fail", choices=["hold", "rollback"], default="hold")
    chosen = parser.parse_args()
    try:
        asyncio.run(migration_flow(**vars(chosen)))
    except GateFailed as failed:
        print(f"HOLD  {failed}", file=sys.stderr)
        return 1
    except CouldNotRun as problem:
        print(f"could not run  {problem.what}", file=sys.stderr)
        for label, text in (("where", problem.where), ("to do", problem.todo)):
            if text:
                print(f"  {label}  {text}", file=sys.stderr)
        return 2
    except Exception as unexpected:  # whatever it was, no gate said no: exit code 1 would lie
        print(f"could not run  {type(unexpected).__name__}: {plain(unexpected)}", file=sys.stderr)
        if os.environ.get("PHASE2_DEBUG"):
            raise
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
