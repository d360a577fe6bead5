"""Every setting, from the environment or `.env`; the defaults are the embedded databases of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bridge.errors import CouldNotRun

ROOT = Path(__file__).resolve().parent.parent
SQL = ROOT / "sql"
DBT_PROJECT = ROOT / "dbt_project"


class Settings(BaseSettings):
    """What a command may be told by its environment. Names are those of the variables, in lower case."""

    # `NAME=` is a variable that is not set
    model_config = SettingsConfigDict(env_file=ROOT / ".env", extra="ignore", frozen=True, env_ignore_empty=True)

    ops_db_url: SecretStr | None = None
    channel_db_url: SecretStr | None = None
    balisnap_db_url: SecretStr | None = None
    bstadmin_db_url: SecretStr | None = None

    phase2_home: Path = Field(ROOT / ".phase2", description="embedded databases, dbt's target, Prefect's home")
    phase2_reports: Path = Field(ROOT / "reports", description="reports/recon/{batch}/{timestamp}.*")
    phase2_dbt_threads: int = 2
    phase2_env: Literal["local", "staging", "production"] | None = Field(
        None, description="which policy holds; unset: local on the embedded server, production on any other"
    )
    phase2_actor: str | None = Field(None, description="who acts, for the ledger; default: the operating system's user")
    phase2_actor_role: str | None = Field(None, description="in which role; the console says so to what it starts")
    phase2_stop_file: Path | None = Field(
        None, description="while it is there nothing starts; default: stop, in the home"
    )
    phase2_ui_pages: Path = Field(ROOT / "ui_pages.yml", description="what the UI release gate pictures (G-07)")
    phase2_alert_url: SecretStr | None = Field(None, description="where alerts are posted; unset: they are only logged")
    phase2_alert_secret: SecretStr | None = Field(None, description="signs them (HMAC-SHA256)")
    phase2_max_blocking_seconds: float = Field(
        5.0, gt=0, description="the longest that an application may wait for a lock of ours"
    )
    phase2_max_active_sessions: int = Field(32, ge=0, description="others' sessions at work; beyond it a run pauses")
    phase2_max_lock_waits: int = Field(
        3, ge=0, description="others' sessions that wait for a lock, for a second or more"
    )
    phase2_max_replica_seconds: float = Field(30.0, gt=0, description="how far a replica of ops may be behind")
    phase2_max_wal_mb_per_second: float = Field(200.0, gt=0, description="of the ops server, between two looks")
    phase2_max_dead_rows: int = Field(1_000_000, ge=0, description="of a canonical table, which autovacuum is to clean")
    phase2_max_pause_seconds: float = Field(300.0, gt=0, description="the longest that a step pauses in all")
    phase2_first_range: int = Field(1_000_000, gt=0, description="bookings; first loads of more than twice are cut")
    phase2_range_seconds: float = Field(60.0, gt=0, description="what a range of a first load is to take")
    phase2_audit_file: Path | None = Field(None, description="PayPal capture export (CSV) for gate E-03")
    phase2_disk_total_bytes: int | None = Field(None, description="of the ops server's data disk (gate A-00)")
    phase2_disk_used_bytes: int | None = None

    @field_validator("phase2_home", "phase2_reports", "phase2_stop_file", "phase2_ui_pages")
    @classmethod
    def _below_the_project(cls, value: Path | None) -> Path | None:
        """A relative path is one of the project's, wherever the command is called."""
        return value and ROOT / value

    @property
    def is_embedded(self) -> bool:
        """True when none of the databases is named by the environment."""
        return not (self.ops_db_url or self.balisnap_db_url or self.bstadmin_db_url)


@dataclass(frozen=True)
class Databases:
    """The URLs in use. They hold passwords: print them with `postgres.describe` only."""

    ops: str
    balisnap: str
    bstadmin: str
    channel: str | None

    def __repr__(self) -> str:
        return "Databases(…)"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once; CouldNotRun names those that cannot be read, without their values."""
    try:
        return Settings()
    except ValidationError as error:
        said = error.errors(include_url=False, include_input=False, include_context=False)
        wrong = {str(problem["loc"][0]).upper(): problem["msg"] for problem in said}
        raise CouldNotRun(
            "; ".join(f"{name}: {message}" for name, message in wrong.items()),
            where="environment, .env",
            todo=f"Set {', '.join(wrong)} to what .env.example says, or not at all.",
        ) from None


def databases() -> Databases:
    """The databases to work on; starts the embedded server when the environment names none.

    Raises CouldNotRun when only some of the three URLs are set: a mixture is a mistake, never a wish.
    """
    chosen = settings()
    if chosen.is_embedded:
        from bridge import embedded  # only then is its start-up cost due

        return embedded.ensure(chosen.phase2_home)
    urls = {
        "OPS_DB_URL": chosen.ops_db_url,
        "BALISNAP_DB_URL": chosen.balisnap_db_url,
        "BSTADMIN_DB_URL": chosen.bstadmin_db_url,
    }
    missing = [name for name, url in urls.items() if url is None]
    if missing:
        raise CouldNotRun(
            f"{', '.join(missing)} not set",
            where="environment",
            todo="Set all of OPS_DB_URL, BALISNAP_DB_URL and BSTADMIN_DB_URL, or none for the embedded databases.",
        )
    ops, balisnap, bstadmin = (url.get_secret_value() for url in urls.values() if url is not None)
    if ops in (balisnap, bstadmin):
        raise CouldNotRun(
            "OPS_DB_URL names a source database",
            where="environment",
            todo="The bridge needs a database of its own; the sources are never written.",
        )
    channel = chosen.channel_db_url.get_secret_value() if chosen.channel_db_url else None
    return Databases(ops=ops, balisnap=balisnap, bstadmin=bstadmin, channel=channel)
