"""How many events a second the API accepts: `python -m tests.bench_ingest --events 5000 --connections 50`.

Real parts: the API in a process of its own, PostgreSQL, and (with --queue) Valkey. The load generator signs before it
starts the clock and speaks HTTP over plain sockets, so that it takes little of the cores it shares with the service.
CPU seconds are those of the API's process: they stay when the machine is shared, requests a second do not.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import uvicorn
import uvloop

from bridge import embedded, postgres
from bridge.settings import ROOT
from core_api import local
from core_api.app import create_app
from core_api.ingest.queue import IngestQueue
from core_api.logs import configure_logging
from tests import serving

_BACKENDS = "select pid from pg_catalog.pg_stat_activity where application_name = 'phase2-core-api'"
_TICKS = os.sysconf("SC_CLK_TCK")


def requests(count: int, host: str) -> list[bytes]:
    """Signed requests as bytes, each an event of its own."""
    made = []
    for _ in range(count):
        body = json.dumps(serving.event()).encode()
        head = [f"POST {serving.PATH} HTTP/1.1", f"host: {host}", f"content-length: {len(body)}"]
        head += [f"{name}: {value}" for name, value in serving.signed(body).items()]
        made.append("\r\n".join(head).encode() + b"\r\n\r\n" + body)
    return made


async def drive(url: str, waiting: list[bytes], connections: int) -> tuple[list[float], dict[int, int], float]:
    """Send all of them; latency of each in seconds, answers by status, seconds in all."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    waiting = waiting[::-1]
    latencies: list[float] = []
    statuses: dict[int, int] = {}

    async def one() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        while waiting:
            request = waiting.pop()
            started = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            latencies.append(time.perf_counter() - started)
            status = int(head[9:12])
            statuses[status] = statuses.get(status, 0) + 1
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    return latencies, statuses, time.perf_counter() - started


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=5000)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--queue", action="store_true", help="with a queue on an embedded Valkey (no worker)")
    asked = parser.parse_args()
    server = postgres.with_database(embedded.ensure(ROOT / ".phase2" / "bench").ops, "postgres")
    with serving.environment(), serving.ready(server) as ops, tempfile.TemporaryDirectory() as home:
        code = "from tests.bench_ingest import serve; serve()"
        environment = os.environ | {"BENCH_OPS": ops, "BENCH_HOME": home if asked.queue else ""}
        with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as api:
            try:
                assert api.stdout
                url = f"http://127.0.0.1:{api.stdout.readline().strip()}"
                wait_for(url)
                measure(url, ops, api.pid, asked)
            finally:
                api.terminate()
        if asked.queue:
            local.stop(Path(home))


def measure(url: str, ops: str, pid: int, asked: argparse.Namespace) -> None:
    """Runs and their lines."""
    uvloop.run(drive(url, requests(300, "bench"), 10))  # plans, prepared statements, pools
    print("events/s  median ms  p95 ms  max ms  CPU ms/event: API  Postgres  generator  answers")
    for _ in range(asked.runs):
        waiting = requests(asked.events, "bench")
        backends = [row[0] for row in serving.rows(ops, _BACKENDS)]
        before, own, theirs = cpu_seconds(pid), time.process_time(), sum(map(cpu_seconds, backends))
        latencies, statuses, seconds = uvloop.run(drive(url, waiting, asked.connections))
        api, own = cpu_seconds(pid) - before, time.process_time() - own
        theirs = sum(map(cpu_seconds, backends)) - theirs
        milliseconds = sorted(1000 * latency for latency in latencies)
        print(
            f"{len(latencies) / seconds:8.0f}  {statistics.median(milliseconds):9.1f}"
            f"  {milliseconds[int(0.95 * len(milliseconds))]:6.1f}  {milliseconds[-1]:6.1f}"
            f"  {1000 * api / len(latencies):17.2f}  {1000 * theirs / len(latencies):8.2f}"
            f"  {1000 * own / len(latencies):9.2f}  {statuses}"
        )


def wait_for(url: str) -> None:
    """Until the service answers; RuntimeError after 30 s."""
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError("the service does not answer")


def serve() -> None:
    """The API's process: says its port, then serves until SIGTERM."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the log lines are written, nobody reads them
    configure_logging()
    queue = None
    if os.environ["BENCH_HOME"]:
        redis, _ = local.ensure(Path(os.environ["BENCH_HOME"]))
        queue = lambda: IngestQueue(redis)  # noqa: E731
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    app = create_app(ops_url=os.environ["BENCH_OPS"], queue=queue)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", log_config=None, access_log=False)
    if profile := os.environ.get("BENCH_PROFILE"):  # a file for cProfile's numbers
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when it has ended
        with cProfile.Profile() as profiler:
            uvicorn.Server(config).run(sockets=[listener])
        profiler.dump_stats(profile)
        return
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
