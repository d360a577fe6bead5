"""`python -m core_api api`, `worker` or `serve` (both, on the embedded parts): each ends cleanly on SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import uvicorn
import uvloop

from bridge import bstadmin, steps
from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun
from bridge.settings import databases
from bridge.settings import settings as bridge_settings
from core_api import database, local
from core_api.ingest.queue import IngestQueue
from core_api.ingest.worker import IngestWorker
from core_api.logs import configure_logging
from core_api.ops import sweeper

_GRACE_SECONDS = 25  # for what is held
_CONNECTIONS = 500  # below the 1,024 files that a process usually may have open


def api() -> None:
    """The HTTP service, until SIGTERM: what it holds is answered first."""
    from core_api.app import create_app  # and with it FastAPI, which the worker does without

    dbs, redis = databases(), local.redis_url()
    steps.bootstrap(dbs.ops)
    configure_logging()
    uvicorn.run(
        create_app(
            ops_url=dbs.ops,
            bstadmin_url=dbs.bstadmin,
            bstadmin_write_url=bstadmin.write_url(),
            queue=lambda: IngestQueue(redis),
        ),
        host=core_settings().core_api_host,
        port=core_settings().core_api_port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
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
        sweeping = asyncio.create_task(sweeper.run(pool, bstadmin.write_url()))
        try:
            await one.run()
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
            await pool.close()

    uvloop.run(run())
    if _orphaned.is_set() and os.environ.get(_OUR_VALKEY):
        local.stop(bridge_settings().phase2_home)


_SERVED, _OUR_VALKEY = "CORE_API_SERVED", "CORE_API_OUR_VALKEY"  # what `serve` tells those whom it has started
_orphaned = threading.Event()


def _end_with_serve() -> None:
    """SIGTERM to ourselves when whoever holds the other end of standard input is gone, however it went."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        _orphaned.set()
        os.kill(os.getpid(), signal.SIGTERM)

    if os.environ.get(_SERVED):
        threading.Thread(target=watch, daemon=True).start()


def serve(started: Callable[[], None] = lambda: None, **settings: str) -> int:
    """API and worker, each in a process of its own, with these settings beside the environment's; `started` is called
    when the API answers. Both end when one does, on SIGTERM, or when this process is killed, and with them the embedded
    Valkey if it was started here.

    Returns 0, or the exit code of the one that ended by itself. CouldNotRun: somebody listens at our port already.
    """
    if _answers():
        raise CouldNotRun(
            "something answers there already", where=core_settings().url, todo="Stop it, or set CORE_API_PORT."
        )
    home = bridge_settings().phase2_home
    given = core_settings().ingest_redis_url
    redis, ours = (given.get_secret_value(), False) if given else local.ensure(home)
    steps.bootstrap(databases().ops)
    environment = (
        os.environ | {"INGEST_REDIS_URL": redis, _SERVED: "1"} | settings | ({_OUR_VALKEY: "1"} if ours else {})
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "core_api", part], env=environment, stdin=subprocess.PIPE, start_new_session=True
        )
        for part in ("api", "worker")
    ]
    asked = False

    def stop(*_: object) -> None:
        nonlocal asked
        for child in children:
            child.kill() if asked else child.terminate()  # a second signal does not wait
        asked = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    answers = False
    while not asked and all(child.poll() is None for child in children):
        time.sleep(0.1)
        if not answers and _answers():
            answers = True
            started()
    early = [code for child in children if (code := child.poll()) is not None] if not asked else []
    if not asked:
        stop()
    for child in children:
        child.wait()
    if ours:
        local.stop(home)
    return max(map(abs, early), default=0)


def _answers() -> bool:
    """Whether something listens where the API will."""
    with socket.socket() as probe:
        return probe.connect_ex((core_settings().core_api_host, core_settings().core_api_port)) == 0


PARTS = {"api": api, "worker": worker, "serve": serve}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PARTS:
        sys.exit(f"python -m core_api {'|'.join(PARTS)}")
    _end_with_serve()
    try:
        sys.exit(PARTS[sys.argv[1]]())
    except CouldNotRun as error:
        print(error, file=sys.stderr)
        sys.exit(2)
