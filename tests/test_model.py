"""`phase2 model`: an edited model says what it changed, row by row and column by column."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from bridge import ledger, model, postgres, runlog, sources, steps, stop, warehouse
from bridge.errors import CouldNotRun, Stopped
from bridge.settings import DBT_PROJECT, settings
from tests.pipeline import Pipeline, fresh

AS_OF = date(2026, 2, 19)


@pytest.fixture(scope="module")
def migrated() -> Iterator[Pipeline]:
    with fresh(os.environ["TEST_PG_URL"], empty=True) as pipeline:
        dbs = pipeline.databases
        sources.create(dbs.balisnap, dbs.bstadmin, bookings=100, seed=7, as_of=AS_OF)
        pipeline.run("A", "D", AS_OF, gates=False)
        yield pipeline


@pytest.fixture
def run(migrated: Pipeline) -> steps.Run:
    return steps.Run(run_id=runlog.uuid7(), databases=migrated.databases, as_of=AS_OF)


def test_a_model_that_was_not_edited_changes_nothing(run: steps.Run) -> None:
    built = model.build(run, "booking_core")

    assert built.failed == ()
    assert {"booking_core", "unique_int_booking_cores_booking_key"} <= {node.name for node in built.nodes}
    assert "int_booking_cores" not in {node.name for node in built.nodes}
    difference = built.difference
    assert difference is not None
    assert (difference.relation, difference.key) == ("public.booking_core", "booking_key")
    assert difference.before == difference.after > 50
    assert (difference.new, difference.gone, difference.changed, difference.columns) == (0, 0, 0, {})


def test_changed_rows_are_counted_by_column(run: steps.Run) -> None:
    with postgres.connect(run.databases.ops) as conn:
        spoilt = conn.execute(
            "update public.booking_core set note = 'spoilt', total_price = total_price + 1 where booking_key in ("
            " select c.booking_key from public.booking_core as c order by c.booking_key limit 3) returning booking_key"
        ).fetchall()
    difference = model.build(run, "booking_core").difference

    assert difference is not None
    assert (difference.new, difference.gone, difference.changed) == (0, 0, 3)
    assert difference.columns == {"total_price": 3, "note": 3}
    assert set(difference.keys) == {str(key) for (key,) in spoilt}


def test_an_edited_working_table_is_compared_with_the_one_before(
    run: steps.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.build(run, "int_booking_finance")
    edited = tmp_path / "dbt_project"
    _copy(edited)
    sql = edited / "models" / "intermediate" / "payment" / "int_booking_finance.sql"
    sql.write_text(sql.read_text() + "where finances.booking_id < 10\n")
    monkeypatch.setattr(warehouse, "DBT_PROJECT", edited)
    difference = model.build(run, "int_booking_finance").difference

    assert difference is not None
    assert difference.new == difference.changed == 0
    assert 0 < difference.gone == difference.before - difference.after < difference.before


def test_a_changed_column_and_a_failed_unit_test_are_said(
    run: steps.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = tmp_path / "dbt_project"
    _copy(edited)
    monkeypatch.setattr(warehouse, "DBT_PROJECT", edited)
    sql = edited / "models" / "intermediate" / "payment" / "int_booking_finance.sql"
    whole = sql.read_text()
    sql.write_text(whole.replace("    finances.pattern_id,", "    finances.pattern_id::text as pattern_id, 1 as more,"))
    difference = model.build(run, "int_booking_finance").difference
    assert difference is not None
    assert set(difference.columns_changed) == {"pattern_id", "more"}
    assert difference.changed == 0

    sql = edited / "models" / "intermediate" / "payment" / "int_payments.sql"
    sql.write_text(sql.read_text().replace("refusals = '{}' as is_bridgeable", "true as is_bridgeable"))
    built = model.build(run, "int_payments")
    assert built.difference is None  # dbt leaves a model alone whose unit test fails
    assert {node.kind for node in built.failed} >= {"unit_test"}


def test_a_function_has_no_rows_and_an_unknown_name_is_said(run: steps.Run) -> None:
    assert model.build(run, "norm_ref").difference is None
    with pytest.raises(CouldNotRun, match="no model 'booking_cores'"):
        model.build(run, "booking_cores")


def test_it_never_works_beside_a_run(run: steps.Run) -> None:
    other = replace(run, run_id=runlog.uuid7())
    with steps.only_runner(other), pytest.raises(CouldNotRun, match="another run"):
        model.build(run, "booking_core")


def _copy(to: Path) -> None:
    for path in DBT_PROJECT.rglob("*"):
        relative = path.relative_to(DBT_PROJECT)
        if path.is_file() and relative.parts[0] not in ("target", "logs"):
            (to / relative).parent.mkdir(parents=True, exist_ok=True)
            (to / relative).write_bytes(path.read_bytes())


def test_a_model_is_built_in_no_environment_but_ones_own_and_not_while_stopped(
    run: steps.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built() -> int:
        with run.connect() as conn:
            return len(ledger.entries(conn, "model", subject="booking_party"))

    monkeypatch.setenv("PHASE2_ENV", "production")
    settings.cache_clear()
    with pytest.raises(CouldNotRun, match="policy here is production"):
        model.build(run, "booking_party")
    monkeypatch.setenv("PHASE2_ENV", "local")
    settings.cache_clear()
    with run.connect() as conn:
        stop.ask(conn, "a look first")
    with pytest.raises(Stopped):
        model.build(run, "booking_party")
    assert built() == 0
    with run.connect() as conn:
        stop.lift(conn, "looked")
    model.build(run, "booking_party")
    assert built() == 1
