"""An evidence bundle: the same bytes for the same content, one changed byte is named, and nobody's data is in it."""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from bridge import bundle, ledger, postgres, runlog, sources, steps, verify_bundle
from bridge.batches import BATCHES
from bridge.errors import CouldNotRun
from bridge.settings import ROOT, settings
from bridge.verify_bundle import FILES, LEDGER, MANIFEST, SEAL, Problem, content_problems, pack, seal, sha256, unpack
from tests.pipeline import Pipeline, fresh

AS_OF = date(2026, 2, 19)
VERIFIER = ROOT / "bridge" / "verify_bundle.py"
PLANTED = {"main_email": "made.wirawan@example.org", "phone": "+6281234567890", "main_name": "Made Wirawan Adiputra"}


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Batches A to E of a small shop, its reports in a folder of their own, and one exception with a person in it."""
    with pytest.MonkeyPatch.context() as patch, fresh(os.environ["TEST_PG_URL"], empty=True) as pipeline:
        dbs = pipeline.databases
        patch.setenv("PHASE2_REPORTS", str(tmp_path_factory.mktemp("reports")))
        settings.cache_clear()
        sources.create(dbs.balisnap, dbs.bstadmin, bookings=80, seed=7, as_of=AS_OF)
        for outcome in pipeline.run("A", "E", AS_OF):
            assert outcome.verdict.result == "PASS", (outcome.verdict.batch, outcome.verdict.blocked_by)
        with postgres.connect(dbs.ops) as conn:
            conn.execute(
                "insert into phase2.exceptions (run_id, evaluated_at, batch, gate_id, entity, key, status, detail)"
                " select run_id, evaluated_at, batch, 'D-03', 'bookings', %s, 'DIFFERS', %s"
                " from phase2.gate_results where batch = 'D' order by gate_result_id desc limit 1",
                (f"DIRECT:{PLANTED['main_email']}", json.dumps(PLANTED)),
            )
            judged = ledger.latest(conn, "verdict", batch="D")
            lists = ledger.listed(conn, "D", judged.body["evaluated_at"])
            ledger.append(conn, "verdict", batch="D", run_id=judged.run_id, body={**judged.body, "exceptions": lists})
            certificate = settings().phase2_reports / "rehearsal" / "D.json"
            certificate.parent.mkdir()
            certificate.write_text('{"fp2 = fp0": true}')
            backup = settings().phase2_reports / "backup.dump"
            backup.write_text(PLANTED["main_name"])
            ledger.append(conn, "rehearsal", batch="D", body={"files": ledger.files(certificate)})
            for number in (1, 2):  # of a drill only the last counts
                report = settings().phase2_reports / f"replay-{number}.json"
                report.write_text(f'{{"number": {number}}}')
                ledger.append(conn, "drill", batch="D", subject="replay", body={"files": ledger.files(report)})
            ledger.append(conn, "sign-off", batch="D", subject="Tech Lead", body={"of": "D"})
            ledger.append(conn, "backup", body={"files": ledger.files(backup)})
        yield pipeline
    settings.cache_clear()


@pytest.fixture(scope="module")
def of_a(migrated: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> bundle.Bundle:
    return bundle.write(migrated.databases.ops, BATCHES["A"], tmp_path_factory.mktemp("bundles") / "A.zip")


@pytest.fixture(scope="module")
def made(migrated: Pipeline, of_a: bundle.Bundle, tmp_path_factory: pytest.TempPathFactory) -> bundle.Bundle:
    return bundle.write(migrated.databases.ops, BATCHES["D"], tmp_path_factory.mktemp("bundles") / "D.zip")


@pytest.fixture
def files(made: bundle.Bundle) -> dict[str, bytes]:
    held, problems = unpack(made.path.read_bytes())
    assert problems == content_problems(held) == []
    return held


def resealed(files: dict[str, bytes]) -> dict[str, bytes]:
    """What a forger can do who knows the format: manifest and seal made anew over changed files."""
    manifest = json.loads(files[MANIFEST])
    manifest["files"] = {name: sha256(files[name]) for name in sorted(files.keys() - {MANIFEST, SEAL})}
    chain = [json.loads(line) for line in files[LEDGER].splitlines()]
    manifest["head"] = {"no": chain[-1]["no"], "digest": chain[-1]["digest"]}
    content = json.dumps(manifest).encode()
    return files | {MANIFEST: content, SEAL: seal(content)}


def bound(files: dict[str, bytes]) -> dict[str, bytes]:
    """As `resealed`, after a new entry of the bundle at the end of the chain: a head of the forger's own."""
    last = json.loads(files[LEDGER].splitlines()[-1])
    body = {"members": verify_bundle.members(files)}
    text = json.dumps({"no": last["no"] + 1, "kind": "bundle", "batch": "D", "body": body, "previous": last["digest"]})
    line = json.dumps({"no": last["no"] + 1, "entry": text, "digest": sha256(text.encode())})
    return resealed(files | {LEDGER: files[LEDGER] + line.encode() + b"\n"})


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def named(problems: list[Problem]) -> str:
    return " ".join(f"{problem.where} {problem.what}" for problem in problems)


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The verifier as somebody else has it: no packages, no environment."""
    return subprocess.run(
        [sys.executable, "-I", "-S", *command], cwd=cwd, env={}, text=True, capture_output=True, timeout=60
    )


# --- what is in it -------------------------------------------------------------------------------------------------


def test_the_same_content_makes_the_same_bytes(migrated: Pipeline, made: bundle.Bundle, tmp_path: Path) -> None:
    again = bundle.write(migrated.databases.ops, BATCHES["D"], tmp_path / "again.zip")
    assert again.path.read_bytes() == made.path.read_bytes()
    assert again.sha256 == made.sha256 == sha256(made.path.read_bytes())
    assert again.stale == ()


def test_it_holds_what_the_issue_asks_for(migrated: Pipeline, files: dict[str, bytes]) -> None:
    verdict = migrated.rows("select body from phase2.ledger where kind = 'verdict' and batch = 'D'")[-1][0]
    named = {
        *verdict["files"],
        "rehearsal/D.json",
        "replay-2.json",
    }  # and not the backup, which holds the customers' data
    assert {name.removeprefix(FILES) for name in files if name.startswith(FILES)} == named
    assert [entry["kind"] for entry in json.loads(files["certificates.json"])] == ["rehearsal", "drill"]
    assert [entry["kind"] for entry in json.loads(files["decisions.json"])] == ["sign-off", "backup"]
    assert {name.rsplit(".")[-1] for name in verdict["files"]} == {"json", "md", "html"}
    assert len(files[LEDGER].splitlines()) == migrated.rows("select count(*) from phase2.ledger")[0][0]
    assert [row["step"] for row in json.loads(files["run_log/steps.json"])][:2] == ["land sources", "dbt batch_d"]
    assert len(json.loads(files["run_log/gates.json"])) == 9
    assert json.loads(files["plan.json"])["code"] == "D"
    nodes = {node["unique_id"]: node for node in json.loads(files["dbt/manifest.json"])["nodes"]}
    assert nodes["model.phase2.booking_core"]["sha256"]
    built = {node["name"]: node for step in json.loads(files["dbt/run_results.json"]) for node in step["nodes"]}
    assert built["booking_core"]["sha256"] == nodes["model.phase2.booking_core"]["sha256"]
    assert "public.booking_core" in json.loads(files["fingerprint.json"])["content"]
    assert files["verify.py"] == VERIFIER.read_bytes()
    assert "scripts/rollback/D.sql" in files


def test_people_are_not_in_it(migrated: Pipeline, files: dict[str, bytes]) -> None:
    people = {
        str(value)
        for (row,) in migrated.rows(
            "select jsonb_build_array(main_contact_name, main_contact_email, phone_number)"
            ' from landing_balisnap."Booking"'
            " union all select jsonb_build_array(main_contact_name, main_contact_email, phone_number, pickup_location)"
            " from landing_bstadmin.bookings"
            " union all select jsonb_build_array(first_name || ' ' || last_name, email, phone, passport_number)"
            ' from landing_balisnap."BookingTraveler"'
        )
        for value in row
        if value and len(str(value)) > 7
    }
    assert len(people) > 100
    everything = b"\n".join(files.values()).decode()
    assert [person for person in people | set(PLANTED.values()) if person in everything] == []
    listed = json.loads(files["run_log/exceptions.json"])
    assert {"main_email": "m•••@e•••", "phone": "+•••", "main_name": "M•••"} in [
        item["detail"] for gate in listed for item in gate["listed"]
    ]
    assert "postgresql://" not in everything  # nor a URL with its password
    assert str(ROOT) not in everything
    assert str(settings().phase2_reports) not in everything


def test_an_errors_text_is_masked_before_the_ledger_has_it(database: str) -> None:
    steps.bootstrap(database)
    with psycopg.connect(database, autocommit=True) as conn:
        with (
            pytest.raises(ValueError, match="example"),
            runlog.step(conn, run_id=uuid4(), batch="A", name="one", kind="dbt"),
        ):
            raise ValueError(f"duplicate {PLANTED['main_email']}")
        assert PLANTED["main_email"] not in str(ledger.entries(conn))
        assert "m•••@e•••" in str(ledger.entries(conn))


# --- who changes it ------------------------------------------------------------------------------------------------


def test_one_flipped_byte_in_each_member_is_named(made: bundle.Bundle, files: dict[str, bytes]) -> None:
    content = made.path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        starts = {m.filename: m.header_offset + 30 + len(m.filename) for m in archive.infolist()}
    assert starts.keys() == files.keys()
    for name, start in starts.items():
        assert content[start : start + len(files[name])] == files[name]
        for at in (0, len(files[name]) // 2, len(files[name]) - 1):
            changed = dict(files) | {name: flipped(files[name], at)}
            assert name in named(content_problems(changed)), (name, at)
        _, problems = unpack(flipped(content, start + len(files[name]) // 2))
        assert name in named(problems)


def test_each_byte_of_the_container_counts() -> None:
    content = pack({"one.txt": b"1", "two.txt": b"2"})
    assert unpack(content) == ({"one.txt": b"1", "two.txt": b"2"}, [])
    for at in range(len(content)):
        assert unpack(flipped(content, at))[1], at
    assert unpack(content + b"\0")[1]
    assert unpack(content[:-1])[1]
    assert [problem.where for problem in unpack(b"not an archive")[1]] == ["the archive"]


def test_a_lost_and_an_added_file_are_named(files: dict[str, bytes]) -> None:
    for name in files:
        rest = {other: content for other, content in files.items() if other != name}
        assert name in named(content_problems(rest)), name
    assert content_problems(files | {"more.txt": b""}) == [
        Problem("more.txt", f"is not in {MANIFEST}: somebody added it")
    ]


def test_a_forger_who_reseals_meets_the_ledger(files: dict[str, bytes]) -> None:
    report = next(name for name in files if name.startswith(FILES) and name.endswith(".json"))
    step = json.loads(files["run_log/steps.json"])
    step[0]["rows"] = 999
    verdict = next(
        number
        for number, line in enumerate(files[LEDGER].splitlines())
        if '"kind": "verdict"' in json.loads(line)["entry"]
    )
    lines = files[LEDGER].splitlines(keepends=True)
    entry = json.loads(lines[verdict])
    entry["entry"] = entry["entry"].replace("PASS", "FAIL")
    entry["digest"] = sha256(entry["entry"].encode())
    forged = {
        report: files[report].replace(b"PASS", b"FAIL"),
        "run_log/steps.json": json.dumps(step).encode(),
        LEDGER: b"".join([*lines[:verdict], json.dumps(entry).encode() + b"\n", *lines[verdict + 1 :]]),
        "decisions.json": json.dumps([{"no": 1, "kind": "sign-off", "actor": "nobody"}]).encode(),
        FILES + "rehearsal/D.json": b'{"fp2 = fp0": false}',
        "certificates.json": files["certificates.json"].replace(b"rehearsal/D.json", b"rehearsal/E.json"),
        "plan.json": files["plan.json"].replace(b'"code": "D"', b'"code": "E"'),
        "scripts/rollback/D.sql": b"begin;\ncommit;\n",
        "dbt/run_results.json": files["dbt/run_results.json"].replace(b"booking_core", b"booking_more"),
        "gate_registry.csv": files["gate_registry.csv"].replace(b",0,", b",1,"),
    }
    for name, content in forged.items():
        where = f"entry {verdict + 2}" if name == LEDGER else name
        problems = content_problems(resealed(files | {name: content}))
        assert where in [problem.where for problem in problems], name
    extra = resealed(files | {FILES + "recon/D/other.json": b"{}"})
    assert content_problems(extra) == [Problem(FILES + "recon/D/other.json", "is in no entry of the ledger")]


def test_a_bundle_that_was_gutted_and_resealed_is_named(files: dict[str, bytes]) -> None:
    """Whatever is taken away: found by the entry of the bundle, and all but the last three kinds without it as well."""
    assert content_problems(bound(files)) == []
    for name in files.keys() - {MANIFEST, SEAL}:
        rest = {other: content for other, content in files.items() if other != name}
        assert name in named(content_problems(resealed(rest) if name != LEDGER else rest)), name
        if name != LEDGER and not name.startswith("scripts/"):
            assert name in named(content_problems(bound(rest))), name
    for name in ("gates", "steps", "exceptions"):
        assert f"run_log/{name}.json" in named(content_problems(bound(files | {f"run_log/{name}.json": b"[]"})))
    for name in ("certificates.json", "decisions.json", "dbt/run_results.json"):
        assert [p.where for p in content_problems(bound(files | {name: b"[]"}))] == [name]
    steps_twice = json.dumps(json.loads(files["run_log/steps.json"]) * 2).encode()
    assert "is there twice" in named(content_problems(bound(files | {"run_log/steps.json": steps_twice})))
    exceptions = json.loads(files["run_log/exceptions.json"])
    exceptions[0]["listed"].pop()
    shorter = {"run_log/exceptions.json": json.dumps(exceptions).encode()}
    assert "not as many are listed" in named(content_problems(bound(files | shorter)))
    unbound = [line for line in files[LEDGER].splitlines(keepends=True) if b'\\"bundle\\"' not in line]
    assert Problem(LEDGER, "has no entry of a bundle of batch D") in content_problems(
        resealed(files | {LEDGER: b"".join(unbound)})
    )


def test_entries_cut_off_the_end_are_found_by_a_pinned_head(files: dict[str, bytes]) -> None:
    head = json.loads(files[MANIFEST])["head"]["digest"]
    decisions = json.dumps(json.loads(files["decisions.json"])[:-1]).encode()
    lines = [line for line in files[LEDGER].splitlines(keepends=True) if b'\\"bundle\\"' not in line]
    cut = bound(files | {LEDGER: b"".join(lines[:-1]), "decisions.json": decisions})
    assert content_problems(cut) == []
    assert [problem.where for problem in content_problems(cut, head)] == ["head"]
    assert content_problems(files, head) == []


def test_a_script_that_is_not_the_one_that_ran_is_named(of_a: bundle.Bundle) -> None:
    files, _ = unpack(of_a.path.read_bytes())
    name, checksums = "scripts/001_create_core_bridge_tables.sql", "scripts/checksums.txt"
    changed = files[name] + b"-- and one more thing\n"
    listed = files[checksums].replace(sha256(files[name]).encode(), sha256(changed).encode())
    problems = content_problems(resealed(files | {name: changed, checksums: listed}))
    assert Problem(name, "is not the one that ran, as the run log has it") in problems
    lost = {other: content for other, content in files.items() if other != name}
    assert Problem(name, "is not there; the run log has it") in content_problems(resealed(lost))


# --- who verifies it -----------------------------------------------------------------------------------------------


def test_the_verifier_needs_nothing_but_python(made: bundle.Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    with zipfile.ZipFile(made.path) as archive:
        archive.extractall(folder)
    alone = shutil.copy(VERIFIER, tmp_path / "alone.py")
    for arguments, cwd in ((["verify.py"], folder), ([str(alone), str(made.path)], tmp_path)):
        done = run(*arguments, cwd=cwd)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert f"head {made.head[1]}" in done.stdout
        assert run(*arguments, "--head", made.head[1], cwd=cwd).returncode == 0
        assert run(*arguments, "--head", "0" * 64, cwd=cwd).returncode == 1
    report = next(folder.glob("files/recon/D/*.html"))
    report.write_bytes(flipped(report.read_bytes(), 100))
    done = run("verify.py", cwd=folder)
    assert done.returncode == 1
    assert f"files/recon/D/{report.name}: is not the one" in done.stdout
    assert run(str(alone), "none-such.zip", cwd=tmp_path).returncode == 2


def test_the_verifier_is_of_the_standard_library_and_old_pythons() -> None:
    tree = ast.parse(VERIFIER.read_text("utf-8"), feature_version=(3, 9))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported <= sys.stdlib_module_names
    zips = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "zip"]
    assert not any(call.keywords for call in zips)  # `strict` came with 3.10


def test_evidence_that_does_not_hold_is_not_written(migrated: Pipeline, tmp_path: Path) -> None:
    ops = migrated.databases.ops
    with postgres.connect(ops) as conn:
        conn.execute("update phase2.step_log set kind = 'nothing' where batch = 'D' and step = 'land sources'")
    try:
        with pytest.raises(bundle.Unsound, match=r"run_log/steps\.json step_log_id \d+ is not what entry \d+ says"):
            bundle.write(ops, BATCHES["D"], tmp_path / "D.zip")
        assert list(tmp_path.iterdir()) == []
    finally:
        with postgres.connect(ops) as conn:
            conn.execute("update phase2.step_log set kind = 'land' where batch = 'D' and step = 'land sources'")


def test_exceptions_that_were_changed_are_no_evidence(migrated: Pipeline, tmp_path: Path) -> None:
    ops = migrated.databases.ops
    with postgres.connect(ops) as conn:
        conn.execute("update phase2.exceptions set status = 'SAME' where batch = 'D' and status = 'DIFFERS'")
        before = ledger.head(conn)
    try:
        with pytest.raises(bundle.Unsound, match=r"phase2\.exceptions the list is not what entry \d+ says"):
            bundle.write(ops, BATCHES["D"], tmp_path / "D.zip")
    finally:
        with postgres.connect(ops) as conn:
            conn.execute("update phase2.exceptions set status = 'DIFFERS' where batch = 'D' and status = 'SAME'")
            assert ledger.head(conn) == before


def test_a_file_that_cannot_be_written_leaves_no_entry(migrated: Pipeline, tmp_path: Path) -> None:
    ops = migrated.databases.ops
    (tmp_path / "file").touch()
    (tmp_path / "D.zip").mkdir()
    with postgres.connect(ops) as conn:
        before = ledger.head(conn)
        for place in (tmp_path / "file" / "C.zip", tmp_path / "D.zip"):
            with pytest.raises(CouldNotRun, match="the bundle cannot be written"):
                bundle.write(ops, BATCHES["C"], place)
        assert ledger.head(conn) == before
    assert {path.name for path in tmp_path.iterdir()} == {"file", "D.zip"}


def test_a_batch_without_a_verdict_has_no_evidence(database: str, tmp_path: Path) -> None:
    steps.bootstrap(database)
    with pytest.raises(CouldNotRun, match="no verdict"):
        bundle.write(database, BATCHES["D"], tmp_path / "D.zip")


def test_a_batch_that_was_rolled_back_has_its_evidence(database: str, tmp_path: Path) -> None:
    """Batch A's rollback takes the scripts' log along: neither its rows nor their entries are missed."""
    steps.bootstrap(database)
    with psycopg.connect(database, autocommit=True) as conn:
        ledger.append(conn, "script", batch="A", body={"row": {"run_key": str(uuid4()), "batch_code": "A"}})
        ledger.append(conn, "verdict", batch="A", body={"result": "PASS", "evaluated_at": "2026-02-19 00:00:00+00:00"})
        with pytest.raises(bundle.Unsound, match=r"run_log/scripts\.json run_key .* is not there; entry 1 tells of it"):
            bundle.write(database, BATCHES["A"], tmp_path / "A.zip")
        ledger.append(conn, "rollback", batch="A")
    assert verify_bundle.check(bundle.write(database, BATCHES["A"], tmp_path / "A.zip").path)[0] == []


def test_the_commands(migrated: Pipeline, made: bundle.Bundle, tmp_path: Path) -> None:
    urls = {f"{name.upper()}_DB_URL": getattr(migrated.databases, name) for name in ("ops", "balisnap", "bstadmin")}

    def phase2(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "phase2"), *arguments]
        return subprocess.run(command, env=os.environ | urls, text=True, capture_output=True, timeout=120)

    path = tmp_path / "D.zip"
    done = phase2("bundle", "--batch", "D", "--out", str(path), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sha256"] == made.sha256
    assert phase2("verify", "--bundle", str(path)).returncode == 0
    path.write_bytes(flipped(path.read_bytes(), 5000))
    done = phase2("verify", "--bundle", str(path), "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["problems"]
    assert phase2("verify", "--bundle", str(tmp_path / "none.zip")).returncode == 2


def test_the_same_rules_stand_once() -> None:
    assert ledger.chain_problems is verify_bundle.chain_problems
    assert ledger.Problem is Problem
