"""Settings of the service: which secrets it takes outside local use, who is shown them, what PHASE2_KILL may name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.cli import app
from bridge.commands import serve as commands
from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun
from bridge.flags import FLAGS
from bridge.settings import settings
from tests import serving

Environment = Callable[..., None]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    """Sets what the environment says of the service; another policy than the local one, with good secrets."""

    def say(**variables: str) -> None:
        for name, value in ({"PHASE2_ENV": "production"} | serving.ENVIRONMENT | variables).items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()
        core_settings.cache_clear()

    yield say
    monkeypatch.undo()
    settings.cache_clear()
    core_settings.cache_clear()


@pytest.mark.parametrize("name", ["CORE_API_ADMIN_TOKEN", "INGEST_SERVICE_TOKEN", "INGEST_SERVICE_SECRET"])
def test_every_secret_that_holds_is_a_good_one(elsewhere: Environment, name: str) -> None:
    elsewhere(**{f"{name}_PREVIOUS": "p" * 32})
    core_settings()
    elsewhere(**{f"{name}_PREVIOUS": ""})
    core_settings()
    for which in (name, f"{name}_PREVIOUS"):
        elsewhere(**{which: "x" * 31})
        with pytest.raises(CouldNotRun, match=rf"^{which} is too short or a local default"):
            core_settings()


def test_a_local_default_is_no_secret_elsewhere(elsewhere: Environment, monkeypatch, tmp_path: Path) -> None:
    elsewhere(PHASE2_ENV="local", PHASE2_HOME=str(tmp_path))
    monkeypatch.delenv("INGEST_SERVICE_SECRET")
    core_settings.cache_clear()
    made = core_settings().ingest_service_secret
    assert made is not None
    elsewhere(INGEST_SERVICE_SECRET_PREVIOUS=made.get_secret_value())
    with pytest.raises(CouldNotRun, match="^INGEST_SERVICE_SECRET_PREVIOUS is too short or a local default"):
        core_settings()


def test_no_token_is_printed_outside_local_use(elsewhere: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    def served(started: Callable[[], None], **_: str) -> int:
        started()
        return 0

    monkeypatch.setattr(commands, "_make_ready", lambda _: None)
    monkeypatch.setattr("core_api.__main__.serve", served)
    for environment in ("local", "staging", "production"):
        elsewhere(PHASE2_ENV=environment)
        shown = CliRunner().invoke(app, ["serve"])
        sample = CliRunner().invoke(app, ["event"])
        as_json = CliRunner().invoke(app, ["event", "--json"])
        assert shown.exit_code == 0
        assert "core API " in shown.stdout
        for told in (shown, sample, as_json):
            assert (serving.TOKEN in told.output) is (environment == "local")
        for refused in (sample, as_json):
            assert isinstance(refused.exception, CouldNotRun) is (environment != "local")


@pytest.mark.parametrize(
    ("named", "killed"),
    [
        ("", set()),
        (" ingest_queue_enabled , WEB_EMIT_BOOKING_EVENT_ENABLED,",
         {"INGEST_QUEUE_ENABLED", "WEB_EMIT_BOOKING_EVENT_ENABLED"}),
        ("All", set(FLAGS)),
    ],
)  # fmt: skip
def test_what_the_kill_switch_names(elsewhere: Environment, named: str, killed: set[str]) -> None:
    elsewhere(PHASE2_KILL=named)
    assert core_settings().killed == killed


def test_a_kill_switch_that_names_no_flag_starts_nothing(elsewhere: Environment) -> None:
    elsewhere(PHASE2_KILL="INGEST_QUEUE, all")
    with pytest.raises(CouldNotRun, match=r"names what is no flag: INGEST_QUEUE \["):
        core_settings()
