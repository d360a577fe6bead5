"""The queue, the worker and the log together."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from core_api.ingest.queue import IngestQueue
from tests.ingest_parts import Parts, forget, parts


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    home: Path = tmp_path_factory.mktemp("queue")
    with parts(os.environ["TEST_PG_URL"], home) as made:
        yield made


@pytest.fixture
def real(shared: Parts) -> Parts:
    forget(shared)
    return shared


def test_an_added_event_is_applied_and_its_worker_ends_cleanly(real: Parts) -> None:
    (key,) = real.accept(["A-1"])
    add(real, key)
    with real.worker() as worker:
        real.wait()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    real.check()


def add(real: Parts, *keys) -> None:
    async def run() -> None:
        queue = IngestQueue(real.redis, real.queue)
        assert all(await asyncio.gather(*(queue.add(key) for key in keys)))
        await queue.close()

    asyncio.run(run())
