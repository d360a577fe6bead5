"""How fast a dual write is: `python -m tests.bench_writes --writes 400 --writers 4`.

Real parts in one process: two databases on the embedded server, the pools of the service, each write with its intent,
core, bstadmin and audit row. Beside it the same writes with the flag off, to bstadmin alone. The ledger takes one audit
row at a time, in its own transaction: that is what writers wait for each other at.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from bridge import embedded, postgres
from bridge.flags import Row
from core_api.ops import writes
from core_api.ops.intents import Writing
from tests.write_parts import AYU, OFF, ON, Booking, Sides, both_sides


async def _measure(sides: Sides, bookings: list[Booking], rows: dict[str, Row], writers: int) -> list[float]:
    writing = Writing(sides.ops, sides.bstadmin, size=writers)
    await writing.open()
    left, seconds = iter(bookings), []

    async def write() -> None:
        for booking in left:
            began = time.perf_counter()
            await writes.perform(
                writing.ops, writing.bstadmin, rows, AYU, booking.key,
                key=uuid4().hex, action="patch", changes={"note": "a note"}, version=1,
            )  # fmt: skip
            seconds.append(time.perf_counter() - began)

    await asyncio.gather(*(write() for _ in range(writers)))
    await writing.close()
    return seconds


def measure(writes: int = 400, writers: int = 4) -> Iterator[dict[str, Any]]:
    """Writes to bstadmin alone, then to both sides: how many a second, p50 and p95 in ms."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        server = postgres.with_database(embedded.ensure(Path(home)).ops, "postgres")
        os.environ |= {"TEST_PG_URL": server, "PHASE2_ENV": "local", "PHASE2_HOME": home}
        try:
            with both_sides() as sides:
                for name, rows in (("bstadmin alone", OFF), ("core and bstadmin", ON)):
                    bookings = [sides.booking() for _ in range(writes)]
                    began = time.perf_counter()
                    took = asyncio.run(_measure(sides, bookings, rows, writers))
                    yield {
                        "what": f"writes to {name}, by {writers}",
                        "value": round(writes / (time.perf_counter() - began)),
                        "p50": round(statistics.median(took) * 1000, 1),
                        "p95": round(statistics.quantiles(took, n=20)[-1] * 1000, 1),
                    }
        finally:
            embedded.stop(Path(home))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=400)
    parser.add_argument("--writers", type=int, default=4)
    asked = parser.parse_args()
    for found in measure(asked.writes, asked.writers):
        print(f"{found['what']}: {found['value']} a second, p50 {found['p50']} ms, p95 {found['p95']} ms")


if __name__ == "__main__":
    main()
