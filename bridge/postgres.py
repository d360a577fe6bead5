"""Connections, and nothing else: every one is UTC, with an empty search_path, and says who it is."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import psycopg
from psycopg import conninfo, sql

from bridge.errors import CouldNotRun

# libpq lets these override what a connection asks for; a run must not depend on the shell's session settings.
for _variable in ("PGTZ", "PGDATESTYLE", "PGOPTIONS", "PGCLIENTENCODING"):
    os.environ.pop(_variable, None)

# What our sessions ask for, whatever the server's defaults. Without the check of the client a statement whose client
# was killed would go on to its end, with its locks, while the next run waits for them; a script would even commit.
# Two landings that are serializable would get into each other's way; who needs one snapshot asks for it.
# The runner's lock is held by an idle session: nobody may end it for that, and it must end with its host.
SESSION = (
    "-c timezone=UTC -c search_path= -c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=1"
    " -c default_transaction_isolation=read\\ committed"
    " -c client_connection_check_interval=1000"
    " -c idle_session_timeout=0 -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
)

OPTIONS = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}


def connect(
    url: str, *, application_name: str = "phase2", read_only: bool = False, autocommit: bool = False
) -> psycopg.Connection:
    """Open `url`; raises CouldNotRun that names host and database (never the password) when it can't be reached."""
    options = SESSION + (" -c default_transaction_read_only=on" if read_only else "")
    try:
        conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise CouldNotRun(
            "a database URL cannot be read",  # libpq's own words would quote it, password and all
            where="OPS_DB_URL, BALISNAP_DB_URL, BSTADMIN_DB_URL",
            todo="Write it as postgresql://user:password@host:port/database, special characters percent-encoded.",
        ) from None
    try:
        conn = psycopg.connect(
            url, **OPTIONS, application_name=application_name, options=options, autocommit=autocommit
        )
    except psycopg.Error as error:
        raise CouldNotRun(
            f"cannot connect: {_first_line(error)}",
            where=describe(url),
            todo="Check that the server runs and that host, port, database, user and password are right.",
        ) from None
    conn.read_only = read_only or None
    return conn


def server_time_zone(url: str) -> str:
    """The server's own zone, below what this database or role may override (then `log_timezone` tells)."""
    with psycopg.connect(url, **OPTIONS, application_name="phase2", autocommit=True) as conn:
        row = conn.execute(
            "select case when s.source in ('database', 'user', 'database user', 'global')"
            " then current_setting('log_timezone') else s.setting end"
            " from pg_catalog.pg_settings as s where s.name = 'TimeZone'"
        ).fetchone()
    return str(row[0]) if row else ""


def statement(template: str, *identifiers: str) -> sql.Composed:
    """`template` with each `{}` replaced by a quoted identifier."""
    return sql.SQL(template).format(*(sql.Identifier(name) for name in identifiers))  # type: ignore[arg-type]


def identity(url: str) -> tuple[object, ...]:
    """Which database of which running server this is, however its URL is spelled."""
    with connect(url, read_only=True) as conn:
        row = conn.execute(
            "select pg_catalog.pg_postmaster_start_time(), d.oid from pg_catalog.pg_database as d"
            " where d.datname = pg_catalog.current_database()"
        ).fetchone()
    return row or ()


def lineage(url: str) -> tuple[object, ...]:
    """The same for a server and its replicas, of one database."""
    with connect(url, read_only=True) as conn:
        row = conn.execute(
            "select c.system_identifier, d.oid from pg_catalog.pg_control_system() as c, pg_catalog.pg_database as d"
            " where d.datname = pg_catalog.current_database()"
        ).fetchone()
    return row or ()


def describe(url: str) -> str:
    """`host:port/database`, for people: no user, no password."""
    parts = conninfo.conninfo_to_dict(url)
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def database_name(url: str) -> str:
    """The database that `url` names; empty when it names none."""
    return str(conninfo.conninfo_to_dict(url).get("dbname", ""))


# How many connections a database that we made to drop it again allows: given by the statement that makes it, so that
# none is without it whenever that was killed. Never reached, and nobody gives it to a database of their own.
_OURS = 7062
MADE_TO_BE_DROPPED = sql.SQL("connection limit {}").format(sql.Literal(_OURS))


def refuse_a_stranger(conn: psycopg.Connection, name: str) -> bool:
    """Whether a database of that name is there to be dropped; CouldNotRun when it is not one that we made for that."""
    row = conn.execute(
        "select d.datconnlimit from pg_catalog.pg_database as d where d.datname = %s", (name,)
    ).fetchone()
    if row is None:
        return False
    if row[0] not in (_OURS, -2):  # -2: its drop was interrupted, nobody can use it any more
        raise CouldNotRun(
            f"there is a database {name}, which was not made to be dropped",
            where=f"{conn.info.host}:{conn.info.port}",
            todo="See what it is; then drop it, or give it another name.",
        )
    return True


def with_database(url: str, database: str) -> str:
    """The same server and user, another database."""
    parts = urlsplit(url)
    return parts._replace(path=f"/{database}").geturl()


def dbt_environment(url: str) -> dict[str, str]:
    """`url` as the variables that profiles.yml reads."""
    parts = conninfo.conninfo_to_dict(url)
    env = {
        "PHASE2_OPS_HOST": str(parts.get("host", "127.0.0.1")),
        "PHASE2_OPS_PORT": str(parts.get("port", 5432)),
        "PHASE2_OPS_USER": str(parts.get("user", "")),
        "PHASE2_OPS_PASSWORD": str(parts.get("password", "")),
        "PHASE2_OPS_DBNAME": str(parts.get("dbname", "")),
    }
    if "sslmode" in parts:
        env["PHASE2_OPS_SSLMODE"] = str(parts["sslmode"])
    return env


def _first_line(error: psycopg.Error) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
