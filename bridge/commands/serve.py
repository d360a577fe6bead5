"""`phase2 serve`, `console-user`, `event`, `env`, `down`: the service on this machine, and what reaching it takes."""

from __future__ import annotations

import getpass
import json as jsonlib
import shlex
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import psycopg
import typer

from bridge import postgres, runlog
from bridge.commands.base import Json, app, err, out, print_json, progress
from bridge.errors import CouldNotRun
from bridge.policy import policy
from bridge.settings import databases, settings

if TYPE_CHECKING:
    from bridge.core_settings import CoreSettings
    from bridge.ingest_client import Request

_SCRIPTS = (
    "001_create_core_bridge_tables.sql",
    "002_add_indexes_and_unique_constraints.sql",
    "003_seed_required_enums_and_checks.sql",
    "010_seed_channel_registry.sql",
    "011_seed_status_dictionary.sql",
    "012_seed_package_ref_type_dictionary.sql",
)
_SHORTEST_PASSWORD = 12
_FLAGS = ("INGEST_WEBHOOK_ENABLED", "INGEST_QUEUE_ENABLED", "INGEST_REPLAY_ENABLED")


@app.command()
def serve() -> None:
    """Run the core API and the queue's worker until Ctrl-C or SIGTERM; what they hold is finished first.

    Without settings on the embedded databases and an embedded Valkey, on port 4000 (`CORE_API_PORT`), with the flags of
    ingestion on where neither the environment nor `phase2.flags` says otherwise. In local use it prints a
    signed request that works.
    """
    from bridge.core_settings import CoreSettings, core_settings
    from core_api.__main__ import serve as run

    chosen = core_settings()
    _make_ready(databases().ops)
    on: dict[str, str] = {}
    if policy().environment == "local":
        on = {flag: "true" for flag in _FLAGS if flag.lower() not in CoreSettings().model_fields_set}

    def started() -> None:
        out.print(f"core API    {chosen.url}  (docs at /docs)")
        out.print(f"console     {chosen.url}/console{_how_to_sign_in(chosen)}")
        if on:
            out.print(f"for local use on: {', '.join(on)}")
        if policy().environment != "local":  # a request holds the token
            return
        out.print("tokens and secrets: phase2 env. A signed request, good for 5 minutes (another one: phase2 event):\n")
        print(_request(), flush=True)

    if run(started, **on):
        raise CouldNotRun(
            "the API or the worker has ended by itself, so both have",
            where=chosen.url,
            todo="Its last lines say why; CORE_API_PORT names another port.",
        )


def _how_to_sign_in(chosen: CoreSettings) -> str:
    from core_api.console import session

    return f"  (any name; password {session.local_password(chosen)})" if session.is_open_house(chosen) else ""


@app.command(name="console-user")
def console_user(
    name: Annotated[str, typer.Argument(help="Who signs in.")],
    roles: Annotated[list[str], typer.Option("--role", help="What this person may sign in as; repeat it.")],
    json: Json = False,
) -> None:
    """Write CONSOLE_USERS with one more person (or another password), for the environment of the core API.

    Asks for the password, or reads it from standard input; only its scrypt hash is written. Restart the API then.

    Example: `phase2 console-user ayu --role "Ops Lead" --role MANAGER`
    """
    from bridge.core_settings import CoreSettings
    from core_api.console import access, session

    if unknown := [role for role in roles if role not in access.ROLES]:
        raise CouldNotRun(f"no such role: {', '.join(unknown)}", todo=f"Roles: {', '.join(access.ROLES)}.")
    password = getpass.getpass("password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if len(password) < _SHORTEST_PASSWORD:
        raise CouldNotRun(f"a password has at least {_SHORTEST_PASSWORD} characters", todo="Choose a longer one.")
    known = {who: user.model_dump() for who, user in session.users(CoreSettings()).items()}
    known[" ".join(name.split())] = {"password": session.hashed(password), "roles": roles}
    if json:
        print_json(known)
    else:
        print(f"CONSOLE_USERS={shlex.quote(jsonlib.dumps(known, ensure_ascii=False))}")


@app.command()
def event(json: Json = False) -> None:
    """Print a signed request for the service as a curl command, good for 5 minutes; in local use only.

    It holds the token.

    Example: `phase2 event | sh`
    """
    if policy().environment != "local":
        raise CouldNotRun(
            "a signed request holds the service's token, which is printed in local use only",
            where=f"PHASE2_ENV, {policy().environment}",
            todo="Let an emitter send it: phase2 emit web, or phase2 emit mail.",
        )
    if json:
        request = _signed()
        print_json({"url": request.url, "headers": request.headers, "body": request.body.decode()})
    else:
        print(_request())


@app.command()
def env(json: Json = False) -> None:
    """Print what others need to reach us as shell exports: `eval "$(phase2 env)"`.

    The database URLs and `PHASE2_ENV` in use, `CORE_API_URL`, and the tokens and secrets of the local set-up (only
    there: elsewhere they are yours).
    """
    from bridge.core_settings import CoreSettings, core_settings, local_secrets
    from core_api.console import session

    dbs = databases()
    values = {"OPS_DB_URL": dbs.ops, "BALISNAP_DB_URL": dbs.balisnap, "BSTADMIN_DB_URL": dbs.bstadmin}
    if dbs.channel:
        values["CHANNEL_DB_URL"] = dbs.channel
    values |= postgres.dbt_environment(dbs.ops)
    values["PHASE2_ENV"] = policy().environment  # with URLs set it would be production, whoever the server is
    if policy().environment == "local":
        values |= {"CORE_API_URL": core_settings().url} | local_secrets()
        if session.is_open_house(core_settings()):
            values["CONSOLE_PASSWORD"] = session.local_password(core_settings())
    else:
        values["CORE_API_URL"] = CoreSettings().url
    if json:
        print_json(values)
    else:
        for name, value in values.items():
            print(f"export {name}={shlex.quote(value)}")


@app.command()
def down(json: Json = False) -> None:
    """Stop the embedded PostgreSQL and Valkey. Their data stays; `make clean` removes it."""
    from bridge import embedded
    from core_api import local

    stopped = embedded.stop(settings().phase2_home)
    valkey = local.stop(settings().phase2_home)
    if json:
        print_json({"stopped": stopped, "valkey": valkey})
    else:
        out.print("stopped" if stopped or valkey else "was not running")


def _make_ready(ops: str) -> None:
    """Events need the tables of batches A and B and the rulebook: made here when missing, but for local use only."""
    from bridge import scripts, steps, warehouse

    steps.bootstrap(ops)
    with postgres.connect(ops, application_name="phase2-serve", autocommit=True) as conn:
        try:
            conn.execute("select rulebook.norm_ref('x') from public.channel_registry, public.ingest_event_log limit 0")
            if conn.execute("select from public.channel_registry limit 1").fetchone() is not None:
                return
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction):
            pass
    if policy().environment != "local":
        raise CouldNotRun(
            "the tables of batches A and B are not there",
            where=postgres.describe(ops),
            todo="phase2 run --from A --to B",
        )
    err.print("first start: the core tables and the rulebook are made", style="dim")
    for name in _SCRIPTS:
        scripts.run_script(ops, name)
    warehouse.build(ops, "ground", progress=progress)


def _signed() -> Request:
    """A request as an emitter sends it: a new booking in a month."""
    from bridge.core_settings import core_settings
    from bridge.ingest_client import signed

    now, key = datetime.now(UTC), str(runlog.uuid7())
    example = {
        "payloadVersion": "v1",
        "eventType": "CREATED",
        "eventTime": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "source": "GYG",
        "externalBookingRef": f"EXAMPLE-{key[-12:].upper()}",
        "customer": {"name": "Made Example", "email": "made@example.com", "phone": "+62 812 0000 0000"},
        "booking": {
            "tourDate": (now + timedelta(days=30)).date().isoformat(),
            "tourTime": "08:30",
            "adult": 2,
            "child": 1,
            "currency": "USD",
            "totalPrice": 95.5,
            "pickupLocation": "Ubud",
        },
        "raw": {"providerPayload": {"example": True}},
    }
    return signed(core_settings(), example, key)


def _request() -> str:
    request = _signed()
    lines = [
        f"curl -sS {shlex.quote(request.url)}",
        *(f"-H {shlex.quote(f'{name}: {value}')}" for name, value in request.headers.items()),
    ]
    return " \\\n  ".join([*lines, f"--data-binary {shlex.quote(request.body.decode())}"])
