"""The door: what a pass is bound to, what taints a batch and lifts the taint, waivers, policies, the dry run.

One shop is migrated (module fixture); each test begins with its databases as they were then, and runs the real flow
without a Prefect server.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import psycopg
import pytest

from bridge import cli, door, fingerprint, gates, ledger, policy, postgres, recon, scripts, steps, waivers, warehouse
from bridge.batches import BACKFILL, BATCHES
from bridge.errors import GateFailed
from bridge.settings import DBT_PROJECT, ROOT, settings
from flows import __main__ as command
from flows import migration
from tests.shop import AS_OF, Shop

SCHEMA = json.loads((ROOT / "bridge" / "reports" / "report.schema.json").read_text("utf-8"))

# Head counts of the web that their items do not bear out: D-03 counts them. Taken back, nobody has changed anything.
BREAK_D = 'update public."Booking" set number_of_adult = number_of_adult + 40 where booking_id % 8 = 0'
MEND_D = 'update public."Booking" set number_of_adult = number_of_adult - 40 where number_of_adult > 40'


_WRITTEN: list[Shop] = []  # whether a test may have written to the shop since it was as it was


class Runs:
    """The shop's databases as they were after its migration, and the command line on them."""

    def __init__(self, shop: Shop, reports: Path) -> None:
        self.shop, self.reports = shop, reports

    def back_to(self, kept: str) -> None:
        """The ops database as it was kept under this name."""
        with postgres.connect(self.shop.server, autocommit=True) as conn:
            conn.execute(postgres.statement("drop database if exists {} with (force)", self.shop.names["ops"]))
            conn.execute(postgres.statement("create database {} template {}", self.shop.names["ops"], kept))

    def run(self, first: str, last: str, *options: str, as_of: date = AS_OF) -> int:
        """`phase2 run`, as the process that it starts does it; its exit code."""
        arguments = ["--from", first, "--to", last, "--as-of", as_of.isoformat(), *options]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["flows", "run", *arguments])
            return command.main()

    def phase2(self, *arguments: str) -> int:
        """A command of `phase2`; its exit code."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["phase2", *arguments])
            with pytest.raises(SystemExit) as ended:
                cli.main()
        return int(ended.value.code or 0)

    def status(self) -> dict[str, str]:
        return {line.batch: line.status for line in steps.status(self.shop.url()) if line.batch in BACKFILL}

    def line(self, code: str) -> steps.BatchStatus:
        return next(line for line in steps.status(self.shop.url()) if line.batch == code)

    def source(self, statement: str, place: str = "balisnap") -> None:
        with postgres.connect(self.shop.url(place), autocommit=True) as conn:
            conn.execute(statement.encode())

    def ops(self) -> psycopg.Connection:
        return postgres.connect(self.shop.url(), autocommit=True)

    def everything(self, schemas: list[str] | None = None) -> fingerprint.Fingerprint:
        with postgres.connect(self.shop.url(), autocommit=True) as conn:
            return fingerprint.take(conn, schemas=schemas)

    def report(self, code: str) -> dict[str, Any]:
        with self.ops() as conn:
            entry = ledger.latest(conn, "verdict", batch=code)
        assert entry is not None
        content = json.loads((self.reports / next(name for name in entry.body["files"] if "json" in name)).read_text())
        jsonschema.Draft202012Validator(SCHEMA).validate(content)
        return content


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("door")


@pytest.fixture(scope="module")
def shop(place: Path) -> Iterator[Shop]:
    """The shop, migrated; what passes are bound to is a copy of the project, which nobody edits meanwhile."""
    ignored = shutil.ignore_patterns("target", "logs", "__pycache__")
    shutil.copytree(DBT_PROJECT, place / "dbt_project", ignore=ignored)
    with pytest.MonkeyPatch.context() as patch:
        look_at(place, patch)
        with Shop(os.environ["TEST_PG_URL"], bookings=150).open(place / "reports") as made:
            yield made


def look_at(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(door, "DBT_PROJECT", folder / "dbt_project")
    patch.setattr(waivers, "REGISTRY", folder / "dbt_project" / "seeds" / "gate_registry.csv")


@pytest.fixture
def reading(shop: Shop, place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    """The shop as it was, in an environment that names it, for tests that write nothing to it; no Prefect."""
    made = Runs(shop, place / "reports")
    if shop in _WRITTEN:
        made.back_to(shop.done)
        _WRITTEN.clear()

    async def publish(_: steps.Outcome) -> None:
        """Prefect's artifacts: there is no Prefect here."""

    monkeypatch.setattr(migration, "run_step", migration.run_step.fn)
    monkeypatch.setattr(migration, "conclude", migration.conclude.fn)
    monkeypatch.setattr(migration, "publish", publish)
    monkeypatch.setattr(command, "migration_flow", migration.migration_flow.fn)
    for name, value in {
        "OPS_DB_URL": shop.url(),
        "BALISNAP_DB_URL": shop.url("balisnap"),
        "BSTADMIN_DB_URL": shop.url("bstadmin"),
        "PHASE2_HOME": str(place),
        "PHASE2_REPORTS": str(made.reports),
        "PHASE2_ACTOR": "wayan",
        "PHASE2_DISK_TOTAL_BYTES": "1000",
        "PHASE2_DISK_USED_BYTES": "100",
    }.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    yield made
    settings.cache_clear()


@pytest.fixture
def runs(shop: Shop, reading: Runs) -> Runs:
    """The same, to write to."""
    _WRITTEN.append(shop)
    return reading


@pytest.fixture
def broken(runs: Runs) -> Iterator[Runs]:
    """A run from C on: batch D failed D-03, of rows in a source. Run once; each test gets a copy."""
    kept = f"{runs.shop.prefix}broken"
    runs.source(BREAK_D)
    try:
        with postgres.connect(runs.shop.server, autocommit=True) as conn:
            known = conn.execute("select 1 from pg_database where datname = %s", (kept,)).fetchone()
        if known:
            runs.back_to(kept)
        else:
            assert runs.run("C", "E") == 1
            runs.shop._copy(runs.shop.names["ops"], kept)
        assert runs.status() == {"A": "PASS", "B": "PASS", "C": "PASS", "D": "FAIL", "E": "HOLD"}
        yield runs
    finally:
        runs.source(MEND_D)


# --- taint -------------------------------------------------------------------------------------------------------


def test_resume_after_a_failed_gate_writes_nothing_and_is_exit_1(broken: Runs, capsys: pytest.CaptureFixture) -> None:
    before = broken.everything()
    failed = broken.line("D")
    assert broken.run("D", "E") == 1
    assert "nothing has changed since the failed verdict" in capsys.readouterr().err
    assert fingerprint.difference(before, broken.everything()) == []
    again = broken.line("D")
    assert (again.status, again.report) == ("FAIL", failed.report)
    assert "D-03" in again.blocked_by
    with broken.ops() as conn:
        assert ledger.latest(conn, "taint", batch="D") is not None
        assert ledger.verify(conn) == []


def test_a_mended_source_row_lifts_the_taint(broken: Runs) -> None:
    """One run never sees its own batches STALE, and running one again on unchanged sources makes nothing STALE."""
    broken.source(MEND_D)
    assert broken.run("C", "E") == 0
    assert broken.status() == dict.fromkeys(BACKFILL, "PASS")
    assert broken.run("D", "D") == 0
    assert broken.status() == dict.fromkeys(BACKFILL, "PASS")
    with broken.ops() as conn:
        lifted = ledger.latest(conn, "taint lifted", batch="D")
    assert lifted is not None
    assert lifted.body["changed"] == ["source snapshot"]


def test_what_lifts_a_taint_and_what_does_not(broken: Runs) -> None:
    def changed() -> tuple[str, ...]:
        with broken.ops() as conn:
            found = door.taint(conn, BATCHES["D"])
        assert found is not None
        assert {"D-03"} <= set(found.gates)
        return found.changed

    assert changed() == ()
    assert broken.run("D", "D", as_of=AS_OF + timedelta(days=1)) == 1, "another day mends nothing"
    assert changed() == ()
    assert recon.evaluate("D").verdict.result == "FAIL"
    assert changed() == (), "to look at it again changes nothing"
    with broken.ops() as conn:
        conn.execute(
            "update public.unmapped_queue set status = 'IN_REVIEW', resolved_by = 'ani' where queue_key = ("
            "select queue_key from public.unmapped_queue order by queue_key limit 1)"
        )
    assert changed() == ("decisions",)


def test_a_recon_that_passes_lifts_it(broken: Runs) -> None:
    assert recon.evaluate("D").verdict.result == "FAIL"
    with broken.ops() as conn:  # by hand, in the bridge
        conn.execute("update public.booking_core set number_of_adult = number_of_adult - 40 where number_of_adult > 40")
    assert recon.evaluate("D").verdict.result == "PASS"
    with broken.ops() as conn:
        assert door.taint(conn, BATCHES["D"]) is None
        door.open_or_raise(conn, BATCHES["E"])


def test_what_others_broke_after_a_good_run_holds_and_does_not_taint(runs: Runs) -> None:
    """Running the batch again mends it."""
    with runs.ops() as conn:
        conn.execute("update public.booking_core set number_of_adult = number_of_adult + 40")
        assert recon.evaluate("D").verdict.result == "FAIL"
        assert door.taint(conn, BATCHES["D"]) is None
        door.open_or_raise(conn, BATCHES["D"])
        with pytest.raises(GateFailed):
            door.open_or_raise(conn, BATCHES["E"])


def test_a_recon_measures_what_was_written_since_the_last_look(runs: Runs) -> None:
    """What it says is what every row says, and costs what was written."""

    def head_counts(*, full: bool = False) -> tuple[Decimal | None, list[str]]:
        said: list[str] = []
        verdict = recon.evaluate("D", full=full, progress=said.append).verdict
        [gate] = [gate for gate in verdict.gates if gate.gate_id == "D-03"]
        return gate.numerator, [line for line in said if "measures" in line]

    head_counts()  # a copied database is another one: nothing is known of it
    recon.evaluate("E")
    sound, _ = head_counts()
    assert sound is not None
    with runs.ops() as conn:
        conn.execute(
            "update public.booking_core set number_of_adult = number_of_adult + 40 where booking_key = ("
            " select i.booking_key from public.booking_item_snapshot as i where i.adult_qty = 2 limit 1)"
        )
    recon.evaluate("E")  # which takes in what was written: D's gates have not seen it yet
    broken, said = head_counts()
    assert (broken, len(said)) == (sound + 1, 1)
    assert "what was touched" in said[0]
    assert head_counts(full=True) == (broken, [])
    head_counts()
    assert head_counts() == (broken, [])  # nothing was written since


def test_batch_a_is_tainted_by_a_fault_of_the_bridge_until_somebody_mends_it(runs: Runs) -> None:
    """On a rerun A and B judge the bridge as it stands."""
    with runs.ops() as conn:
        conn.execute("set session_replication_role = replica")  # past the foreign keys
        conn.execute("create table phase2.kept as select * from public.booking_core order by booking_key limit 1")
        conn.execute("delete from public.booking_core as c using phase2.kept as k where c.booking_key = k.booking_key")
        assert runs.run("A", "A") == 1
        found = door.taint(conn, BATCHES["A"])
        assert found is not None
        assert (found.stands, "G-08" in found.gates) == (True, True)
        assert runs.run("A", "A") == 1
        assert ledger.latest(conn, "taint", batch="A") is not None
        conn.execute("insert into public.booking_core select * from phase2.kept")
        assert runs.run("A", "A") == 0


def test_a_rollback_is_no_new_plan(broken: Runs) -> None:
    assert broken.phase2("rollback", "--batch", "E") == 0
    assert broken.phase2("rollback", "--batch", "D") == 0
    before = broken.everything(["public"])
    assert broken.run("D", "D") == 1
    assert broken.status()["D"] == "ROLLED_BACK"
    assert fingerprint.difference(before, broken.everything(["public"])) == []


def test_a_gate_that_is_not_hard_holds_but_does_not_taint(broken: Runs) -> None:
    with broken.ops() as conn:
        entry = ledger.latest(conn, "verdict", batch="D")
        assert entry is not None
        body = entry.body | {"failed": {g: said | {"severity": "major"} for g, said in entry.body["failed"].items()}}
        ledger.append(conn, "verdict", batch="D", run_id=entry.run_id, body=body)
        assert door.taint(conn, BATCHES["D"]) is None
        with pytest.raises(GateFailed):
            door.open_or_raise(conn, BATCHES["E"])


# --- what a pass is bound to -------------------------------------------------------------------------------------


@pytest.fixture
def files(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of what the door looks at, to be edited: `dbt_project` and `phase2` (the scripts)."""
    shutil.copytree(place / "dbt_project", tmp_path / "dbt_project")
    shutil.copytree(scripts.FOLDER, tmp_path / "phase2")
    look_at(tmp_path, monkeypatch)
    monkeypatch.setattr(scripts, "FOLDER", tmp_path / "phase2")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "old", "new", "part", "batches"),
    [
        ("dbt_project/seeds/gate_registry.csv", "<=,0.005,", "<=,0.5,", "gate definitions", "C"),
        ("dbt_project/seeds/gate_registry.csv", "G-02,*,", "G-02,*,Another ", "gate definitions", "ABCDE"),
        ("dbt_project/functions/norm_ref.sql", "select", "select ", "functions", "ABCDE"),
        ("dbt_project/models/bridge/booking/booking_core.sql", "select", "select ", "dbt code", "DE"),
        ("dbt_project/models/bridge/payment/payment_event.sql", "select", "select ", "dbt code", "E"),
        ("dbt_project/macros/queue_lifecycle.sql", "cause gone", "gone", "dbt code", "ABCDE"),
        ("phase2/010_seed_channel_registry.sql", "begin;", "begin; ", "plan", "B"),
    ],
)
def test_a_pass_is_stale_when_what_it_is_bound_to_is_edited(
    reading: Runs, files: Path, file: str, old: str, new: str, part: str, batches: str
) -> None:
    assert reading.status() == dict.fromkeys(BACKFILL, "PASS")
    text = (files / file).read_text("utf-8")
    assert old in text
    (files / file).write_text(text.replace(old, new, 1), "utf-8")

    lines = {line.batch: line for line in steps.status(reading.shop.url())}
    assert {code for code, line in lines.items() if line.status == "STALE"} == set(batches)
    assert {lines[code].changed for code in batches} == {(part,)}
    behind = BACKFILL[BACKFILL.index(batches[0]) + 1 :]
    with reading.ops() as conn:
        for code in behind:
            with pytest.raises(GateFailed, match=f"STALE, changed since it was judged: {part} "):
                door.open_or_raise(conn, BATCHES[code])
        for code in BACKFILL[: BACKFILL.index(batches[0]) + 1]:
            door.open_or_raise(conn, BATCHES[code])


def test_judged_anew_it_is_bound_anew(runs: Runs, files: Path) -> None:
    registry = files / "dbt_project" / "seeds" / "gate_registry.csv"
    registry.write_text(registry.read_text("utf-8").replace("C-01,C,", "C-01,C,Another "), "utf-8")
    assert runs.status()["C"] == "STALE"
    assert runs.run("D", "D") == 1
    assert runs.phase2("recon", "--batch", "C") == 0
    assert runs.status() == dict.fromkeys(BACKFILL, "PASS")


def test_a_batch_runs_on_the_rows_that_the_batches_before_it_passed_on(runs: Runs) -> None:
    """Sources that go on changing make no pass stale; from C on they are landed. Other rows are never written."""
    runs.source("update public.bookings set note = 'ring twice' where booking_id = 3", "bstadmin")
    noted = "select count(*) from landing_bstadmin.bookings where note = 'ring twice'"
    assert runs.run("D", "D") == 0
    assert runs.run("E", "E") == 0
    assert runs.status() == dict.fromkeys(BACKFILL, "PASS")
    with runs.ops() as conn:
        assert conn.execute(noted).fetchone() == (0,)
    assert runs.run("C", "D") == 0
    assert runs.status() == dict.fromkeys("ABCD", "PASS") | {"E": "STALE"}
    lost = "truncate landing_bstadmin.bookings"  # planted: the server lost the landed rows
    with runs.ops() as conn:
        assert conn.execute(noted).fetchone() == (1,)
        conn.execute(lost)
        assert runs.run("D", "D") == 0, "the same rows are landed again"
        assert runs.line("C").status == "PASS"
        conn.execute(lost)
        before = runs.everything(["public"])
        runs.source("update public.bookings set note = 'ring thrice' where booking_id = 4", "bstadmin")
        assert runs.run("D", "D") == 1
        assert fingerprint.difference(before, runs.everything(["public"])) == []
        line = runs.line("D")
        assert (line.status, line.blocked_by) == ("HOLD", ("C",))
        assert "other rows" in (line.error or "")
        with pytest.raises(GateFailed, match="gates of C: STALE, changed since it was judged: source snapshot"):
            door.open_or_raise(conn, BATCHES["D"])


def test_a_run_says_under_which_policy_it_was_let_in_or_refused(
    broken: Runs, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with broken.ops() as conn:
        let_in = ledger.latest(conn, "run", batch="D")
        assert let_in is not None
        assert let_in.body["environment"] == "local"
        said = {line["name"]: (line["state"], line["demanded"]) for line in let_in.body["door"]}
        assert said["gates of C"] == ("PASS", True)
        assert said["sign-off Owner"] == ("HOLD", False)
        monkeypatch.setenv("PHASE2_ENV", "production")
        settings.cache_clear()
        assert broken.run("E", "E") == 1
        shown = capsys.readouterr().err
        refused = ledger.latest(conn, "refused", batch="E")
        assert refused is not None
        assert refused.body["environment"] == "production"
        assert any(line.startswith("gates of D: not passed: D-03") for line in refused.body["holding"])
        for line in refused.body["holding"]:
            assert f"\n  {line}\n" in shown, "one line a criterion"
        assert ledger.latest(conn, "run", batch="E") != refused


def test_a_pass_that_no_verdict_tells_of_opens_nothing(runs: Runs) -> None:
    """Somebody wrote the state and the gates by hand; or it is of a version that kept no bindings."""
    with runs.ops() as conn:
        entry = ledger.latest(conn, "verdict", batch="C")
        assert entry is not None
        body = {key: said for key, said in entry.body.items() if key != "bound_to"}
        ledger.append(conn, "verdict", batch="C", run_id=entry.run_id, body=body)
        assert set(door.stale(conn, "C")) == set(door.PARTS)
        with pytest.raises(GateFailed, match="STALE"):
            door.open_or_raise(conn, BATCHES["D"])


def test_the_ledger_is_believed_not_the_tables_beside_it(broken: Runs) -> None:
    """Planted: gate results and state say PASS by hand. So does the state of a batch that was rolled back."""
    with broken.ops() as conn:
        failed = ledger.latest(conn, "verdict", batch="D")
        conn.execute("update phase2.gate_results set status = 'PASS' where batch = 'D'")
        conn.execute("update phase2.batch_state set status = 'PASS' where batch = 'D'")
        assert failed is not None
        with pytest.raises(GateFailed, match=f"gates of D: not passed: D-03.*entry {failed.no}"):
            door.open_or_raise(conn, BATCHES["E"])
        assert "D-03" in broken.line("D").blocked_by
        assert door.against(conn, "C") == ()
        undone = ledger.append(conn, "rollback", batch="C", body={})
        assert door.against(conn, "C") == (f"rollback since (entry {undone.no})",)
        assert broken.status()["C"] == "FAIL"


def test_files_that_change_while_a_run_is_at_work_did_not_make_its_verdict(runs: Runs, files: Path) -> None:
    run = runs.shop.run()
    steps.start(run, BATCHES["C"])
    model = files / "dbt_project" / "models" / "bridge" / "catalog" / "catalog_product.sql"
    model.write_text(model.read_text("utf-8") + "\n", "utf-8")
    assert steps.conclude(run, BATCHES["C"]).verdict.result == "PASS"
    assert runs.line("C").changed == ("dbt code",)


@pytest.mark.parametrize("code", ["C", "D", "E"])
def test_a_batchs_code_is_all_that_its_models_are_made_of(shop: Shop, code: str) -> None:
    """dbt says what a batch's bridge and its gates read, however far up; the door knows it by folders."""
    manifest = warehouse._manifest(shop.url(), warehouse.digest())
    folder = {"C": "models/bridge/catalog/", "D": "models/bridge/booking/", "E": "models/bridge/payment/"}[code]
    wanted = [
        node.unique_id
        for node in manifest.nodes.values()
        if node.original_file_path.startswith((folder, f"models/recon/batch_{code.lower()}/"))
    ]
    seen: set[str] = set()
    while wanted:
        node = manifest.nodes.get(wanted.pop())
        if node and node.unique_id not in seen:
            seen.add(node.unique_id)
            wanted += getattr(node.depends_on, "nodes", [])  # a seed depends on none
    read = {manifest.nodes[one].original_file_path for one in seen}
    known = {str(path) for path in door._dbt_files(BATCHES[code])} | {"seeds/gate_registry.csv"}
    assert len(read) > 20
    assert read <= known


# --- waivers -----------------------------------------------------------------------------------------------------


def waive(runs: Runs, gate: str, *scope: str, days: int = 30, batch: str = "D") -> int:
    last = (waivers.today() + timedelta(days=days)).isoformat()
    words = ("--reason", "retired tours, ticket 812", "--expires", last)
    return runs.phase2("waive", "--batch", batch, "--gate", gate, *words, *scope)


def test_a_waived_gate_fails_and_its_batch_passes(broken: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    for gate in broken.line("D").blocked_by:
        assert waive(broken, gate) == 0
    with broken.ops() as conn:
        assert door.taint(conn, BATCHES["D"]) is None
        with pytest.raises(GateFailed):  # it holds from the next verdict on
            door.open_or_raise(conn, BATCHES["E"])
    verdict = recon.evaluate("D").verdict
    assert (verdict.result, verdict.blocked_by) == ("PASS", ())
    content = broken.report("D")
    gate = next(gate for gate in content["gates"] if gate["id"] == "D-03")
    assert gate["status"] == "FAIL"
    assert "waived by wayan until" in gate["waived"]
    said = next(waiver for waiver in content["waivers"] if waiver["gate"] == "D-03")
    assert (said["by"], said["reason"], said["used"]) == ("wayan", "retired tours, ticket 812", True)
    record = next(
        iter(sorted((broken.reports / "recon" / "D").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)[-1:])
    )
    for drawn in (record.with_suffix(".md"), record.with_suffix(".html")):
        assert "retired tours, ticket 812" in drawn.read_text("utf-8")
    assert "D-03" in broken.line("D").waived
    with broken.ops() as conn:
        door.open_or_raise(conn, BATCHES["E"])
    recon.evaluate("E")
    assert {(w["gate"], w["used"]) for w in broken.report("E")["waivers"]} >= {("D-03", False)}

    with monkeypatch.context() as patch:
        patch.setattr(waivers, "today", lambda: date.today() + timedelta(days=40))
        assert broken.status()["D"] == "FAIL"
        with broken.ops() as conn, pytest.raises(GateFailed) as raised:
            door.open_or_raise(conn, BATCHES["E"])
        assert any("D-03" in line for line in raised.value.blocked_by)
    assert broken.phase2("unwaive", "--batch", "D", "--gate", "D-03", "--reason", "mended") == 0
    assert broken.status()["D"] == "FAIL"
    assert recon.evaluate("D").verdict.blocked_by == ("D-03",)


def test_beyond_its_scope_a_gate_fails_again(broken: Runs) -> None:
    assert waive(broken, "D-03", "--at-most", "1") == 0
    assert waive(broken, "G-02", "--value", "0.011") == 0
    verdict = recon.evaluate("D").verdict
    assert set(verdict.blocked_by) == {"D-03", "G-02"}
    with broken.ops() as conn:
        assert door.taint(conn, BATCHES["D"]) is not None


@pytest.mark.parametrize(
    ("gate", "scope", "days", "words"),
    [
        ("G-01", ("--at-most", "3"), 30, "hard stop"),
        ("G-08", ("--at-most", "3"), 30, "hard stop"),
        ("D-01", ("--at-most", "3"), 30, "hard stop"),
        ("C-01", (), 30, "does not ask gate"),
        ("D-05", (), 30, "nothing to take the scope from"),
        ("D-05", ("--at-most", "3"), -1, "is past"),
        ("D-05", ("--at-most", "-3"), 30, "holds nothing"),
        ("D-05", ("--value", "much"), 30, "is no number"),
        ("D-05", ("--value", "0"), 30, "passes D-05"),
        ("G-02", ("--value", "0"), 30, "passes G-02"),
        ("G-02", ("--value", "0.5"), 30, "too far from the threshold"),
        ("G-02", ("--at-most", "1000000"), 30, "too many"),
        ("G-02", ("--at-most", "3"), 91, "is too far"),
    ],
)
def test_what_cannot_be_waived_is_refused(
    reading: Runs, capsys: pytest.CaptureFixture, gate: str, scope: tuple[str, ...], days: int, words: str
) -> None:
    assert waive(reading, gate, *scope, days=days) == 2
    assert words in capsys.readouterr().err
    with reading.ops() as conn:
        assert waivers.standing(conn) == ()


def test_an_entry_by_hand_waives_no_hard_stop_and_nothing_that_was_not_measured(runs: Runs) -> None:
    with runs.ops() as conn:
        last = waivers.today().isoformat()
        for gate in ("G-08", "D-05", "D-06"):
            body = {"reason": "because", "at_most": 9999, "expires": last}
            ledger.append(conn, "waiver", batch="D", subject=gate, body=body)
        ledger.append(conn, "waiver", batch="D", subject="D-02", body={"reason": "no end", "at_most": 9999})
        body = {"reason": "for ever", "at_most": 9, "expires": "9999-12-31"}
        ledger.append(conn, "waiver", batch="D", subject="D-03", body=body)
        conn.execute("set session_replication_role = replica")  # past the foreign keys
        conn.execute(
            "delete from public.booking_core where booking_key = ("
            "select booking_key from public.booking_core order by booking_key limit 1)"
        )
        conn.execute("update dbt_seeds.gate_registry set threshold = null where gate_id = 'D-06'")
        verdict = gates.evaluate(conn, "D", runs.shop.run().run_id)
    assert {"G-08", "D-06"} <= set(verdict.blocked_by)
    assert "D-05" not in verdict.blocked_by
    assert next(gate.status for gate in verdict.gates if gate.gate_id == "D-05") == "FAIL"
    assert {waiver.gate for waiver in verdict.waivers} == {"G-08", "D-05", "D-06"}


@pytest.mark.parametrize(
    ("at_most", "value", "exceptions", "found", "threshold", "covers"),
    [
        (5, None, 5, "0.2", "0.01", True),
        (5, None, 6, "0.2", "0.01", False),
        (None, "0.2", 900, "0.2", "0.01", True),
        (None, "0.2", 1, "0.21", "0.01", False),
        (5, "0.2", 5, "0.21", "0.01", False),
        (None, "0.9", 3, "0.95", "1", True),
        (None, "0.9", 3, "0.85", "1", False),
        (None, "0", 3, "0.09", "0.05", False),
        (None, "1.2", 3, "0.9", "1", False),
        (None, "0.05", 3, "0.09", "0.05", False),
        (None, None, 1, "1", "0", False),
        (None, "0.2", 1, None, "0.01", False),
    ],
)
def test_the_scope_of_a_waiver(
    at_most: int | None, value: str | None, exceptions: int, found: str | None, threshold: str, covers: bool
) -> None:
    limit = None if value is None else Decimal(value)
    waiver = waivers.Waiver(1, "D", "D-03", "wayan", "because", at_most, limit, date.max)
    measured = None if found is None else Decimal(found)
    assert waiver.covers(exceptions=exceptions, value=measured, threshold=Decimal(threshold)) is covers


# --- policy ------------------------------------------------------------------------------------------------------


def test_unset_the_environment_is_production_on_a_server_that_is_not_ours(reading: Runs, monkeypatch: Any) -> None:
    monkeypatch.delenv("PHASE2_ENV")
    monkeypatch.setitem(settings.__wrapped__.__globals__["Settings"].model_config, "env_file", None)
    settings.cache_clear()
    assert policy.policy().environment == "production"
    for name in ("OPS_DB_URL", "BALISNAP_DB_URL", "BSTADMIN_DB_URL"):
        monkeypatch.delenv(name)
    settings.cache_clear()
    assert policy.policy().environment == "local"
    monkeypatch.setenv("PHASE2_ENV", "staging")
    settings.cache_clear()
    assert policy.policy().environment == "staging"


@pytest.mark.parametrize(("environment", "opens"), [("local", True), ("staging", False), ("production", False)])
def test_what_the_policy_demands_holds_every_batch_and_is_shown_where_it_is_not_demanded(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, environment: str, opens: bool
) -> None:
    def criteria(conn: Any, one: Any, asked: policy.Policy) -> list[policy.Criterion]:
        return [policy.Criterion("rehearsal", "HOLD", "never rehearsed", "make rehearse", "4", asked.rehearsal)]

    monkeypatch.setattr(door, "_others", lambda: (criteria,))
    monkeypatch.setenv("PHASE2_ENV", environment)
    settings.cache_clear()
    with runs.ops() as conn:
        for code in BACKFILL:
            if opens:
                door.open_or_raise(conn, BATCHES[code])
            else:
                with pytest.raises(GateFailed, match="rehearsal: never rehearsed"):
                    door.open_or_raise(conn, BATCHES[code])
    recon.evaluate("C")
    content = runs.report("C")
    said = next(line for line in content["door"] if line["name"] == "rehearsal")
    assert (said["state"], said["demanded"]) == ("HOLD", not opens)
    assert (f"policy {environment} demands" in content["signoffs"]["policy"]) is True
    assert ("production would demand" in content["signoffs"]["policy"]) is (environment != "production")


def test_a_run_of_another_day_is_held_where_it_counts(reading: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(code: str, as_of: date, environment: policy.Environment = "production") -> tuple[str, bool, str]:
        with reading.ops() as conn:
            lines = door.criteria(conn, BATCHES[code], policy.POLICIES[environment], as_of)
        line = next(line for line in lines if line.name == "as of")
        return (line.state, line.holds, line.evidence)

    monkeypatch.setattr(waivers, "today", lambda: AS_OF)
    monkeypatch.setattr(waivers, "in_bali", lambda _: AS_OF)
    assert found("C", AS_OF)[:2] == ("PASS", False)
    assert found("C", AS_OF + timedelta(days=1))[:2] == ("PASS", False)
    assert found("C", date(2020, 1, 1))[:2] == ("HOLD", True)
    assert found("C", date(2020, 1, 1), "staging")[:2] == ("HOLD", True)
    assert found("C", date(2020, 1, 1), "local")[:2] == ("HOLD", False)
    monkeypatch.setattr(waivers, "in_bali", lambda _: AS_OF + timedelta(days=400))
    assert found("A", AS_OF)[:2] == ("PASS", False)
    assert found("D", AS_OF)[:2] == ("HOLD", True)
    assert f"C ran on {AS_OF + timedelta(days=400)} as of {AS_OF}" in found("D", AS_OF)[2]


def test_every_topic_has_its_lines_in_the_go_no_go(reading: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waivers, "today", lambda: AS_OF)
    monkeypatch.setattr(waivers, "in_bali", lambda _: AS_OF)
    with reading.ops() as conn:
        asked = {p: door.criteria(conn, BATCHES["C"], policy.POLICIES[p]) for p in ("local", "staging", "production")}
    holds = {environment: {line.name for line in lines if line.holds} for environment, lines in asked.items()}
    assert len({tuple(line.name for line in lines) for lines in asked.values()}) == 1, "shown in each, demanded or not"
    assert {"gates of A", "gates of B", "taint of C", "no stop"} <= {line.name for line in asked["local"]}
    assert holds["local"] == set()
    assert holds["staging"] == {"rehearsal"}
    assert holds["production"] > {"rehearsal", "sign-off Tech Lead", "sign-off Owner", "freeze window"}


def test_a_run_shows_the_gates_that_it_judged_and_no_old_ones(
    runs: Runs, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "flow", lambda _: 1)  # the door was shut
    assert runs.phase2("run", "--from", "D", "--to", "D") == 1
    shown = capsys.readouterr().out
    assert "D-03" not in shown
    assert "C-01" not in shown
    monkeypatch.setattr(cli, "flow", lambda _: recon.evaluate("D").verdict.result != "PASS")
    assert runs.phase2("run", "--from", "D", "--to", "D") == 0
    shown = capsys.readouterr().out
    assert "D-03" in shown
    assert "C-01" not in shown


def test_a_report_prints_the_head_of_the_ledger(runs: Runs) -> None:
    with runs.ops() as conn:
        before = ledger.head(conn)
    outcome = recon.evaluate("D")
    head = runs.report("D")["ledger"]
    assert head["entries"] >= before[0]
    with runs.ops() as conn:
        assert ledger.verify(conn, pinned=head["head"]) == []
    for drawn in (outcome.report.md, outcome.report.html):
        assert head["head"] in drawn.read_text("utf-8")


# --- dry run -----------------------------------------------------------------------------------------------------


@pytest.fixture
def reader(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A role that may look at the state, and write nothing; the command line connects as it."""
    name = f"door_reader_{os.getpid()}"
    url = urlsplit(runs.shop.url())
    with runs.ops() as conn:
        conn.execute(postgres.statement("create role {} login password 'reads'", name))
        conn.execute(postgres.statement("grant usage on schema phase2 to {}", name))
        conn.execute(postgres.statement("grant select on all tables in schema phase2 to {}", name))
    for place in ("ops", "balisnap", "bstadmin"):
        as_reader = url._replace(netloc=f"{name}:reads@{url.hostname}:{url.port}", path=f"/{runs.shop.names[place]}")
        monkeypatch.setenv(f"{place.upper()}_DB_URL", as_reader.geturl())
    settings.cache_clear()
    yield name
    with runs.ops() as conn:
        conn.execute(postgres.statement("drop owned by {}", name))
        conn.execute(postgres.statement("drop role {}", name))


def all_rows(runs: Runs) -> tuple[Any, ...]:
    """Catalog and every row of ops, logs too; content of the sources."""
    with runs.ops() as conn:
        whole = fingerprint.rows(conn)
    sources = []
    for place in ("balisnap", "bstadmin"):
        with postgres.connect(runs.shop.url(place), autocommit=True) as conn:
            sources.append(fingerprint.take(conn))
    return (whole, runs.everything().catalog, *sources)


def test_a_dry_run_needs_no_right_to_write_and_changes_nothing(
    runs: Runs, reader: str, capsys: pytest.CaptureFixture
) -> None:
    with postgres.connect(os.environ["OPS_DB_URL"]) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("delete from phase2.run_context")
    before = all_rows(runs)
    capsys.readouterr()
    assert runs.phase2("run", "--dry-run", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["batch"] for one in shown] == list(BACKFILL)
    ran = {name: digest for one in shown for step in one["steps"] for name, digest in step["files"].items()}
    assert ran["001_create_core_bridge_tables.sql"] == scripts.checksum(
        scripts.FOLDER / "001_create_core_bridge_tables.sql"
    )
    assert "dbt batch_d" in [step["name"] for step in shown[3]["steps"]]
    assert {("gates of A", "PASS"), ("gates of C", "PASS"), ("taint of D", "PASS")} <= {
        (line["name"], line["state"]) for line in shown[3]["door"]
    }
    assert all_rows(runs) == before


def test_a_dry_run_says_which_door_is_shut(broken: Runs, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    assert broken.phase2("run", "--from", "E", "--dry-run") == 1
    shown = capsys.readouterr().out
    assert "gates of D: HOLD" in shown
    assert "D-03" in shown
    assert "nothing was changed" in shown


def test_a_dry_run_of_an_empty_database_makes_nothing_in_it(
    reading: Runs, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_DB_URL", database)
    settings.cache_clear()
    assert reading.phase2("run", "--to", "C", "--dry-run") == 0
    assert reading.phase2("run", "--from", "B", "--dry-run") == 1
    with postgres.connect(database, autocommit=True) as conn:
        assert conn.execute("select to_regnamespace('phase2') is null").fetchone() == (True,)


# --- what else a door is trusted for -----------------------------------------------------------------------------


def test_exceptions_are_of_the_snapshot_of_their_count_and_listed_on_a_pass(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another session changes every booking while the verdict is read; one booking differs, which D-03 allows."""
    with runs.ops() as conn:
        conn.execute(
            "update public.booking_core set number_of_adult = number_of_adult + 1 where booking_key = ("
            "select booking_key from public.booking_core order by booking_key limit 1)"
        )
    said = gates._said

    def disturbed(conn: psycopg.Connection, batch: str, run_id: Any) -> Any:
        with runs.ops() as other:
            other.execute("update public.booking_core set number_of_adult = number_of_adult + 40")
        return said(conn, batch, run_id)

    monkeypatch.setattr(gates, "_said", disturbed)
    with runs.ops() as conn:
        verdict = gates.evaluate(conn, "D", runs.shop.run().run_id)
    assert verdict.result == "PASS", verdict.blocked_by
    listed = {gate.gate_id: gate.exceptions for gate in verdict.gates if gate.exceptions}
    assert listed["D-03"] == 1
    for gate_id, counted in listed.items():
        assert sum(e.is_counted for e in verdict.exceptions_of(gate_id)) == counted
    monkeypatch.undo()
    with runs.ops() as conn:
        assert gates.evaluate(conn, "D", runs.shop.run().run_id).result == "FAIL"


def test_rollback_of_no_batch_in_particular_is_refused(runs: Runs) -> None:
    before = runs.everything()
    assert runs.phase2("rollback", "--yes") == 2
    assert fingerprint.difference(before, runs.everything()) == []
