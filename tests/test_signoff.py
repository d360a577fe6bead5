"""Sign-offs: who let a batch start, what exactly was signed, and when that counts no more."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from uuid import uuid4

import pytest

from bridge import cli, door, ledger, policy, postgres, runlog, signoff, steps, waivers
from bridge.batches import BATCHES
from bridge.errors import CouldNotRun, GateFailed
from bridge.policy import POLICIES, Criterion
from bridge.reports.document import _signed
from bridge.settings import ROOT, Databases, settings

D = BATCHES["D"]
PRODUCTION = POLICIES["production"]
FOUR = {"Tech Lead": "ayu", "Backend Lead": "budi", "DevOps": "citra", "Owner": "dewi"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An ops database, used by one test after the other: a drop costs more than a test."""
    server, name = os.environ["TEST_PG_URL"], f"t_sign_{uuid4().hex[:8]}"
    with postgres.connect(server, autocommit=True) as conn:
        conn.execute(postgres.statement("create database {}", name))
    yield postgres.with_database(server, name)
    with postgres.connect(server, autocommit=True) as conn:
        conn.execute(postgres.statement("drop database {} with (force)", name))


@pytest.fixture
def run(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[steps.Run]:
    """An ops database in which batch C was run by eka, and judged."""
    monkeypatch.setenv("PHASE2_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setenv("PHASE2_HOME", str(tmp_path))
    monkeypatch.setenv("PHASE2_ENV", "production")
    server = os.environ["TEST_PG_URL"]
    with postgres.connect(url, autocommit=True) as conn:
        conn.execute("set client_min_messages = error; drop schema if exists phase2 cascade")
    for variable in ("OPS_DB_URL", "BALISNAP_DB_URL", "BSTADMIN_DB_URL"):
        monkeypatch.setenv(variable, url if variable == "OPS_DB_URL" else server)
    settings.cache_clear()
    steps.bootstrap(url)
    made = steps.Run(
        run_id=runlog.uuid7(),
        databases=Databases(ops=url, balisnap=server, bstadmin=server, channel=None),
        as_of=date(2026, 2, 19),
    )
    with made.connect() as conn:
        ledger.append(conn, "run", batch="C", run_id=made.run_id, actor="eka")
        judge(made, "0.001")
    yield made
    settings.cache_clear()


def judge(run: steps.Run, value: str) -> Path:
    """A verdict of C with this value of a gate, and its report."""
    report = settings().phase2_reports / "recon" / "C" / f"{uuid4().hex}.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("{}")
    with run.connect() as conn, conn.transaction():
        conn.execute(
            "insert into phase2.gate_results (run_id, batch, gate_id, value, comparator, threshold, status)"
            " values (%s, 'C', 'C-01', %s, '<=', 0.005, 'PASS')",
            (run.run_id, value),
        )
        body = {"result": "PASS", "opens_door": True, "files": ledger.files(report)}
        ledger.append(conn, "verdict", batch="C", run_id=run.run_id, body=body)
    return report


def lines(run: steps.Run) -> dict[str, Criterion]:
    with run.connect() as conn:
        return {line.name: line for line in signoff.criteria(conn, D, PRODUCTION)}


def holding(run: steps.Run) -> set[str]:
    return {name for name, line in lines(run).items() if line.holds}


def sign(run: steps.Run, **more: str) -> None:
    with run.connect() as conn:
        for role, who in (FOUR | more).items():
            signoff.sign(conn, D, role, who)


def phase2(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["phase2", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)


def test_a_missing_sign_off_is_hold(run: steps.Run) -> None:
    found = lines(run)
    assert {name for name, line in found.items() if line.state == "HOLD"} == {
        *(f"sign-off {role}" for role in FOUR),
        "approved by another than ran it",
    }
    assert 'phase2 sign --batch D --role "Owner"' in found["sign-off Owner"].todo
    sign(run)
    assert holding(run) == set()
    assert lines(run)["sign-off Tech Lead"].evidence.startswith("ayu (entered by ")


def test_who_is_needed() -> None:
    assert set(signoff.needed("A")) == set(signoff.needed("F")) == set(FOUR)
    assert set(signoff.needed("G")) == set(signoff.needed("H")) == {*FOUR, "Ops Lead"}


def test_local_asks_for_none_and_shows_them_all(run: steps.Run) -> None:
    with run.connect() as conn:
        found = signoff.criteria(conn, D, POLICIES["local"])
    assert any(line.state == "HOLD" for line in found)
    assert not any(line.holds for line in found)


def test_one_person_does_not_sign_for_two_roles_that_differ(run: steps.Run) -> None:
    with run.connect() as conn:
        signoff.sign(conn, D, "tech lead", "Ayu  Made")
        for role in ("Backend Lead", "DevOps", "Owner", "Ops Lead"):
            with pytest.raises(CouldNotRun, match="another person"):
                signoff.sign(conn, D, role, "ayu made")
        signoff.sign(conn, D, "DBA", "Ayu Made")  # may be the same
        signoff.sign(conn, D, "Tech Lead", "Ayu Made")  # again
    with run.connect() as conn:
        signoff.revoke(conn, D, "Tech Lead", "Ayu Made", "I am the owner")
        signoff.sign(conn, D, "Owner", "Ayu Made")


def test_one_person_in_two_roles_counts_once_though_the_ledger_was_written_by_hand(run: steps.Run) -> None:
    sign(run)
    with run.connect() as conn:
        body = {"digest": signoff._digest(signoff.what_is_signed(conn, D))}
        ledger.append(conn, "sign-off", batch="D", subject="Owner", actor="AYU", body=body)
    assert holding(run) == {"sign-off Owner"}
    assert "has signed for Tech Lead too" in lines(run)["sign-off Owner"].evidence


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("numbers", "verdict of C"),
        ("gate definitions", "its plan and code"),
        ("rehearsal", "rehearsal"),
        ("waiver", "waivers"),
    ],
)
def test_a_change_of_what_was_signed_voids_it(
    run: steps.Run, monkeypatch: pytest.MonkeyPatch, change: str, part: str
) -> None:
    sign(run)
    judge(run, "0.001")
    assert holding(run) == set(), "the same numbers judged again are the same"
    if change == "numbers":
        judge(run, "0.002")
    elif change == "rehearsal":
        with run.connect() as conn:
            ledger.append(conn, "rehearsal", batch="D")
    elif change == "waiver":
        with run.connect() as conn:
            waivers.waive(conn, batch="C", gate="C-02", reason="known", expires=waivers.today(), at_most=1)
    else:
        code_of = door.code_of
        monkeypatch.setattr(door, "code_of", lambda one: code_of(one) | {"gate definitions": "another"})
    assert holding(run) == {*(f"sign-off {role}" for role in FOUR), "approved by another than ran it"}
    evidence = lines(run)["sign-off Owner"].evidence
    assert evidence.startswith("void, changed since it was signed: ")
    assert part in evidence
    assert "dewi" in evidence
    sign(run)
    assert holding(run) == set()


def test_a_revoked_sign_off_does_not_count(run: steps.Run) -> None:
    sign(run)
    with run.connect() as conn:
        with pytest.raises(CouldNotRun, match="needs a reason"):
            signoff.revoke(conn, D, "Owner", "dewi", " ")
        signoff.revoke(conn, D, "Owner", "dewi", "holiday")
        with pytest.raises(CouldNotRun, match="no sign-off of Owner"):
            signoff.revoke(conn, D, "Owner", "dewi", "again")
    assert holding(run) == {"sign-off Owner"}
    assert "revoked by dewi" in lines(run)["sign-off Owner"].evidence


def test_who_ran_it_is_not_its_only_approver(run: steps.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither under the own name, nor under names that were typed."""
    four_eyes = "approved by another than ran it"
    typing(monkeypatch, "Eka")
    sign(run)
    assert holding(run) == {four_eyes}
    assert "C was run by eka; approved by ayu (entered by Eka), " in lines(run)[four_eyes].evidence
    typing(monkeypatch, "ayu")
    with run.connect() as conn:
        signoff.sign(conn, D, "Tech Lead", "eka")
        assert holding(run) == {four_eyes}
        signoff.sign(conn, D, "Tech Lead", "ayu")
        assert holding(run) == set()
        # it is the word of who ran it before, too
        ledger.append(conn, "run", batch="C", actor="ayu")
        ledger.append(conn, "run", batch="C", actor="eka")
        assert holding(run) == {four_eyes}
        ledger.append(conn, "rollback", batch="C")
        ledger.append(conn, "run", batch="C", actor="eka")
        assert holding(run) == set()


def typing(monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    monkeypatch.setenv("PHASE2_ACTOR", who)
    settings.cache_clear()


def test_reports_are_there_and_are_those_of_the_ledger(run: steps.Run) -> None:
    sign(run)
    report = judge(run, "0.001")
    report.write_text("{} ")
    assert holding(run) == {"reports of C"}
    assert "is not the one that was written" in lines(run)["reports of C"].evidence
    report.unlink()
    assert "is not there" in lines(run)["reports of C"].evidence
    assert holding(run) == {"reports of C"}


@pytest.mark.parametrize(("role", "who"), [("Boss", "ayu"), ("Owner", "  ")])
def test_neither_roles_nor_names_are_made_up(run: steps.Run, role: str, who: str) -> None:
    with run.connect() as conn:
        with pytest.raises(CouldNotRun):
            signoff.sign(conn, D, role, who)
        assert ledger.latest(conn, "sign-off") is None


def test_the_door_asks_for_them(run: steps.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the sign-offs the door is shut though all else holds nothing."""
    monkeypatch.setattr(door.gates, "open_or_raise", lambda *_: None)
    monkeypatch.setattr(door, "against", lambda *_: ())
    monkeypatch.setattr(door, "stale", lambda *_: ())
    only = replace(PRODUCTION, rehearsal=False, readiness=False, freeze_window=False)
    monkeypatch.setitem(policy.POLICIES, "production", only)
    with run.connect() as conn:
        with pytest.raises(GateFailed, match="sign-off Owner: nobody has signed"):
            door.open_or_raise(conn, D)
        sign(run)
        door.open_or_raise(conn, D)


def test_a_decision_is_kept_and_only_a_signed_yes_is_one(run: steps.Run) -> None:
    for said in (
        {"go": False, "role": "Owner", "who": "dewi"},
        {"go": True, "role": "", "who": "dewi"},
        {"go": True, "role": "Owner", "who": ""},
        {"go": "yes", "role": "Owner", "who": "dewi"},
    ):
        assert signoff.decide(run, D, **said).subject == "no-go"  # type: ignore[arg-type]
    with run.connect() as conn:
        assert ledger.latest(conn, "sign-off") is None
    yes = signoff.decide(run, D, go=True, role="Owner", who="dewi", note="window agreed")
    assert (yes.subject, yes.actor) == ("go", "dewi")
    assert "sign-off Owner" not in yes.body["holding"]
    assert "sign-off DevOps" in yes.body["holding"]


def test_the_command_shows_who_is_missing(run: steps.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert phase2("sign", "--batch", "D", "--role", "Owner", "--as", "dewi", "--note", "window agreed") == 0
    capsys.readouterr()
    assert phase2("go-no-go", "--batch", "D", "--json") == 1
    shown = json.loads(capsys.readouterr().out)
    assert not shown["go"]
    assert {"rehearsal", "freeze window", "sign-off DevOps"} <= set(shown["holding"])
    assert "sign-off Owner" not in shown["holding"]
    owner = next(line for line in shown["criteria"] if line["name"] == "sign-off Owner")
    assert "window agreed" in owner["evidence"]
    assert phase2("go-no-go", "--batch", "D") == 1
    assert "NO GO" in capsys.readouterr().out
    assert phase2("revoke", "--batch", "D", "--role", "Owner", "--as", "dewi", "--reason", "x") == 0
    assert phase2("sign", "--role", "Owner", "--as", "dewi") == 2


def test_reports_name_who_has_signed_and_what_is_void(run: steps.Run) -> None:
    with run.connect() as conn:
        signoff.sign(conn, D, "Owner", "dewi")
        (said,) = _signed(conn, D)
        assert (said["role"], said["who"], said["at"][-1], said["void"]) == ("Owner", "dewi", "Z", "")
        judge(run, "0.002")
        (said,) = _signed(conn, D)
    assert said["void"] == "changed since it was signed: verdict of C"
    for template in ("report.md.j2", "report.html.j2"):
        text = (ROOT / "bridge" / "reports" / template).read_text()
        assert "{{ given.who }}{% if given.void %} (void: {{ given.void }}){% endif %}" in text
