"""The command line without a migration: help, exit codes, and errors that say what, where and what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.settings import Settings

PHASE2 = str(Path(sys.executable).parent / "phase2")
COMMANDS = (
    "up",
    "down",
    "env",
    "run",
    "recon",
    "rollback",
    "status",
    "fingerprint",
    "scenarios",
    "demo",
    "verify",
    "bundle",
    "explain",
)


def phase2(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PHASE2, *arguments], env=os.environ | env, text=True, capture_output=True, timeout=120)


def urls(ops: str) -> dict[str, str]:
    """Sources that nobody listens for: port 1 of this machine."""
    nowhere = "postgresql://reader:very-secret@127.0.0.1:1/shop"
    return {"OPS_DB_URL": ops, "BALISNAP_DB_URL": nowhere, "BSTADMIN_DB_URL": nowhere}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_each_command(command: str) -> None:
    done = phase2(command, "--help")
    assert done.returncode == 0
    assert "--json" in done.stdout
    assert len(done.stdout.split()) > 20


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_lists_the_commands(arguments: tuple[str, ...]) -> None:
    shown = phase2(*arguments)
    for command in COMMANDS:
        assert command in shown.stdout + shown.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("recon", "--batch", "Z"), "there is no batch 'Z'"),
        (("run", "--from", "D", "--to", "B"), "batch D comes after batch B"),
        (("run", "--on-fail", "pray"), "Use hold or rollback"),
        (("recon",), "batch"),
        (("demo", "--scenario", "none-such"), "there is no scenario"),
        (("run", "--as-of", "tomorrow"), "tomorrow"),
    ],
)
def test_a_wrong_word_is_exit_2_and_says_what_to_do(database: str, arguments: tuple[str, ...], words: str) -> None:
    done = phase2(*arguments, **urls(database))
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_some_urls_set_and_some_not_is_a_mistake() -> None:
    done = phase2("status", OPS_DB_URL="postgresql://phase2@127.0.0.1:1/ops_db")
    assert done.returncode == 2
    assert "BALISNAP_DB_URL, BSTADMIN_DB_URL not set" in done.stderr


@pytest.mark.parametrize("value", ["producton", " "])
def test_a_setting_that_cannot_be_read_is_named(value: str) -> None:
    done = phase2("status", PHASE2_ENV=value)
    assert done.returncode == 2
    assert "PHASE2_ENV: Input should be 'local', 'staging' or 'production'" in done.stderr
    assert "https://" not in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_setting_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PHASE2_ENV", "PHASE2_STOP_FILE", "PHASE2_DISK_TOTAL_BYTES"):
        monkeypatch.setenv(name, "")
    empty = Settings()
    assert (empty.phase2_env, empty.phase2_stop_file, empty.phase2_disk_total_bytes) == (None, None, None)


def test_an_unreachable_database_is_named_without_its_password() -> None:
    done = phase2("status", **urls("postgresql://phase2:very-secret@127.0.0.1:1/ops_db"))
    assert done.returncode == 2
    assert "127.0.0.1:1/ops_db" in done.stderr
    assert "very-secret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_has_run_yet(database: str) -> None:
    shown = phase2("status", "--json", **urls(database))
    assert {line["status"] for line in json.loads(shown.stdout)} == {"PENDING"}
    for verb in ("recon", "rollback"):
        done = phase2(verb, "--batch", "D", **urls(database))
        assert done.returncode == 2
        assert "batch D is not in" in done.stderr


def test_rollback_needs_a_batch(database: str) -> None:
    assert phase2("rollback", **urls(database)).returncode == 2


def test_env_prints_exports_that_a_shell_takes(database: str) -> None:
    done = phase2("env", **urls(database))
    shown = subprocess.run(
        ["sh", "-c", done.stdout + '\nprintf %s "$OPS_DB_URL"'], text=True, capture_output=True, check=True
    )
    assert shown.stdout == database


@pytest.mark.parametrize("environment", ["local", "staging"])
def test_a_shell_that_took_the_exports_is_in_the_same_environment(database: str, environment: str) -> None:
    done = phase2("env", **urls(database), PHASE2_ENV=environment)
    assert f"export PHASE2_ENV={environment}\n" in done.stdout
