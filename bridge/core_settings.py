"""Every setting of the core API and of those who call it, from the environment or `.env`.

Local secrets are made at the first start.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from bridge.errors import CouldNotRun
from bridge.policy import policy
from bridge.settings import ROOT, settings

SHORTEST_SECRET = 32  # characters, outside local use
_MADE = ("ingest_service_token", "ingest_service_secret", "core_api_admin_token")


class CoreSettings(BaseSettings):
    """What the service is told by its environment. Names are those of the variables, in lower case."""

    model_config = SettingsConfigDict(env_file=ROOT / ".env", extra="ignore", frozen=True)

    core_api_host: str = "127.0.0.1"
    core_api_port: int = 4000
    core_api_url: str | None = Field(None, description="where others reach it; unset: host and port")
    core_api_admin_token: SecretStr | None = None
    core_api_admin_token_previous: SecretStr | None = Field(None, description="still valid while it is replaced")

    ingest_service_token: SecretStr | None = None
    ingest_service_token_previous: SecretStr | None = None
    ingest_service_secret: SecretStr | None = Field(None, description="signs requests (HMAC-SHA256)")
    ingest_service_secret_previous: SecretStr | None = None

    ingest_redis_url: SecretStr | None = Field(None, description="unset: an embedded Valkey below PHASE2_HOME")
    ingest_queue_name: str = "ingest-bookings-events"
    ingest_worker_concurrency: int = 16
    ingest_sweep_seconds: float = Field(5.0, description="how often the sweeper looks for what the queue has lost")
    ingest_recover_seconds: float = Field(
        15.0, description="an accepted event this old that is not at work is queued again"
    )
    ingest_lock_seconds: float = Field(10.0, description="a worker that is silent for so long has lost its jobs")
    ingest_retry_seconds: tuple[float, ...] = Field(
        (30.0, 120.0, 600.0, 1800.0, 7200.0), description="delays of the retries (blueprint 6.7); tests shorten them"
    )

    bstadmin_write_db_url: SecretStr | None = Field(
        None, description="the back office's writes to bstadmin; unset: bstadmin's own URL, where the policy is local"
    )

    console_users: SecretStr | None = Field(
        None, description="who may sign in to the console: JSON, as `phase2 console-user` writes it"
    )
    console_session_hours: float = Field(8.0, gt=0, le=24, description="then a session of the console is over")

    ops_read_timeout_seconds: float = Field(2.0, gt=0, description="then the read model is late: bstadmin answers")

    ops_shadow_percentage: float = Field(5.0, ge=0, le=100, description="of the reads run on the other side too")

    ops_testers: str = Field("", description="for whom reads and writes are switched first: x-actor names, commas")

    phase2_kill: str = Field("", description="flags that are off here whatever else says on: names, commas; or `all`")
    ingest_webhook_enabled: bool = False
    ingest_queue_enabled: bool = False
    ingest_replay_enabled: bool = False
    ops_read_new_model_enabled: bool = False
    ops_write_core_enabled: bool = False
    web_emit_booking_event_enabled: bool = False
    email_pipeline_core_enabled: bool = False

    @property
    def killed(self) -> frozenset[str]:
        """The flags that PHASE2_KILL names, in any case. Raises CouldNotRun for a name that is none of a flag."""
        known = frozenset(name.upper() for name, field in type(self).model_fields.items() if field.annotation is bool)
        named = {name.strip().upper() for name in self.phase2_kill.split(",")} - {""}
        if unknown := sorted(named - known - {"ALL"}):
            raise CouldNotRun(
                f"PHASE2_KILL names what is no flag: {', '.join(unknown)}",
                where="environment",
                todo=f"Names with commas, or `all`: {', '.join(sorted(known))}.",
            )
        return known if "ALL" in named else frozenset(named)

    @property
    def url(self) -> str:
        """CORE_API_URL: where the service answers."""
        return (self.core_api_url or f"http://{self.core_api_host}:{self.core_api_port}").rstrip("/")


@lru_cache(maxsize=1)
def core_settings() -> CoreSettings:
    """The settings of this process, read once; in the local policy missing secrets are made and kept (mode 0600).

    Raises CouldNotRun outside local use when a secret is missing, or one, also a previous one, is short or one of the
    local ones; anywhere for a PHASE2_KILL that names no flag.
    """
    chosen = CoreSettings()
    _ = chosen.killed
    local = policy().environment == "local"
    kept = _local_secrets() if local else _read_local()
    if local:
        missing = {name: SecretStr(kept[name]) for name in _MADE if getattr(chosen, name) is None}
        return chosen.model_copy(update=missing)
    for name in (*_MADE, *(f"{name}_previous" for name in _MADE)):
        given = getattr(chosen, name)
        value = given.get_secret_value() if given else ""
        if not value and name not in _MADE:
            continue
        if len(value) < SHORTEST_SECRET or value in kept.values():
            raise CouldNotRun(
                f"{name.upper()} is {'missing' if not value else 'too short or a local default'}",
                where="environment",
                todo=f"Set it to at least {SHORTEST_SECRET} random characters; the service does not start with less.",
            )
    return chosen


@contextmanager
def instead(chosen: CoreSettings) -> Iterator[None]:
    """Call the service of these settings, as to address and tokens, in place of that of the environment; and write to
    the bstadmin that it writes to, if it does."""
    given = {name.upper(): getattr(chosen, name).get_secret_value() for name in _MADE} | {"CORE_API_URL": chosen.url}
    if chosen.bstadmin_write_db_url:
        given["BSTADMIN_WRITE_DB_URL"] = chosen.bstadmin_write_db_url.get_secret_value()
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    core_settings.cache_clear()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        core_settings.cache_clear()


def local_secrets() -> dict[str, str]:
    """Tokens and secret of the local set-up, for `phase2 env`: by variable name."""
    chosen = core_settings()
    return {name.upper(): getattr(chosen, name).get_secret_value() for name in _MADE}


def _local_secrets() -> dict[str, str]:
    kept = _read_local()
    if set(_MADE) - kept.keys():
        kept = {name: kept.get(name) or secrets.token_hex(32) for name in _MADE}
        path = settings().phase2_home / "core_api.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(kept, file)
        try:
            os.link(draft, path)  # the first of two that start at once wins
        except FileExistsError:
            kept = _read_local()
        finally:
            draft.unlink()
    return kept


def _read_local() -> dict[str, Any]:
    path = settings().phase2_home / "core_api.json"
    return json.loads(path.read_text()) if path.exists() else {}
