"""`python -m core_api api`, `worker` or `serve` (both, on the embedded parts): each ends cleanly on SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import uvicorn
import uvloop

from bridge import steps
from bridge.settings import databases
from core_api import database, local
from core_api.app import configure_logging, create_app
from core_api.ingest.queue import IngestQueue
from core_api.ingest.worker import IngestWorker
from core_api.settings import core_settings

_GRACE_SECONDS = 25.0  # for what is held; a second signal does not wait


def api() -> None:
    """The HTTP service, until SIGTERM: what it holds is answered first."""
    ops, redis = databases().ops, local.redis_url()
    steps.bootstrap(ops)
    configure_logging()
    uvicorn.run(
        create_app(ops_url=ops, queue=lambda: IngestQueue(redis)),
        host=core_settings().core_api_host,
        port=core_settings().core_api_port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(_GRACE_SECONDS),
    )


def worker() -> None:
    """The queue's worker and sweeper, until SIGTERM: what it holds is finished first."""
    ops, redis = databases().ops, local.redis_url()
    steps.bootstrap(ops)
    configure_logging()

    async def run() -> None:
        pool = database.pool(ops, size=4, application_name="phase2-ingest-worker")
        await pool.open()
        one = IngestWorker(pool, redis)
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, one.stop)
        try:
            await one.run()
        finally:
            await pool.close()

    uvloop.run(run())


def serve() -> int:
    """API and worker, each in a process of its own; both end when one does, or on SIGTERM."""
    redis = local.redis_url()  # started before both, so that neither has to
    steps.bootstrap(databases().ops)
    environment = os.environ | {"INGEST_REDIS_URL": redis}
    children = [
        subprocess.Popen([sys.executable, "-m", "core_api", part], env=environment, start_new_session=True)
        for part in ("api", "worker")
    ]
    asked = False

    def stop(*_: object) -> None:
        nonlocal asked
        for child in children:
            child.kill() if asked else child.terminate()
        asked = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while all(child.poll() is None for child in children):
        time.sleep(0.1)
    if not asked:
        stop()
    codes = [child.wait() for child in children]
    return max(map(abs, codes))


if __name__ == "__main__":
    parts = {"api": api, "worker": worker, "serve": serve}
    if len(sys.argv) != 2 or sys.argv[1] not in parts:
        sys.exit(f"python -m core_api {'|'.join(parts)}")
    sys.exit(parts[sys.argv[1]]())
