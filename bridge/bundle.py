"""`phase2 bundle`: the evidence of one batch as one archive, which a standard-library file inside it can verify.

What goes in (gates.md, artefacts): the report of the latest verdict, the run log, the whole ledger, the plan with the
gates' limits, the dbt project and what ran of it, the scripts with their checksums, a fingerprint, the certificates of
rehearsals and drills, what people decided, and `verify.py`. It is verified before it is written. Equal content makes
equal bytes.

What the ledger does not say anyway is bound to it by an entry "bundle" with the digests, written with the archive
unless the batch's last one says the same: whoever keeps the head has all of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import IsolationLevel, sql

from bridge import door, fingerprint, ledger, postgres, verify_bundle, warehouse
from bridge.batches import Batch
from bridge.errors import CouldNotRun
from bridge.ledger import Problem
from bridge.reports.mask import mask, mask_text
from bridge.settings import DBT_PROJECT, SQL, settings

_README = """\
Evidence of batch {code} ({focus}): {result} at {at}.

    python verify.py                 recomputes every digest in here; needs Python 3.9 or later and nothing else
    sha256sum --check {seal}

files/               what entries of the ledger name: the report of the latest verdict, certificates
ledger.jsonl         the whole chain: number, text and digest (SHA-256 of the text) of each entry
run_log/             rows of this batch: steps, gates, scripts, and the latest verdict's exceptions (masked)
plan.json            the batch as planned; gate_registry.csv has the gates' limits
dbt/                 manifest.json: the project's nodes with their digests; run_results.json: what ran of them
scripts/             sql/phase2 with its checksums
fingerprint.json     what schema public held when the bundle was made: objects, rows and their digest, no values
certificates.json    rehearsals of this batch, and the last of each of its drills
decisions.json       sign-offs, waivers and the like, of every batch
MANIFEST.json        SHA-256 of each file, and the head of the chain: compare it with one that was kept elsewhere
"""


class Unsound(Exception):
    """The evidence does not hold together: no bundle is written (exit code 1)."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{problem.where} {problem.what}" for problem in problems))


@dataclass(frozen=True)
class Bundle:
    """A written archive. `head` is the chain's; `stale` is what has changed since the verdict in it."""

    path: Path
    sha256: str
    files: int
    head: tuple[int, str]
    stale: tuple[str, ...]


def write(ops_url: str, batch: Batch, out: Path | None = None) -> Bundle:
    """Write the bundle of a batch; by default below the reports' folder, named by the chain's head.

    Raises CouldNotRun when the batch has no verdict yet or the file cannot be written, Unsound when something is not
    what the ledger says.
    """
    with postgres.connect(ops_url, application_name="phase2-bundle", read_only=True, autocommit=True) as conn:
        _verdict(conn, batch)
        taken = fingerprint.take(conn, schemas=["public"])
    said = {
        "dbt/manifest.json": _json({"project_sha256": warehouse.digest(), "nodes": warehouse.project(ops_url)}),
        "fingerprint.json": _json({"digest": taken.digest, **taken.document()}),
    }
    with postgres.connect(ops_url, application_name="phase2-bundle", autocommit=True) as conn:
        # before the snapshot is taken: nobody adds to the chain that is read, and extended, in it
        conn.execute("select pg_advisory_lock(hashtextextended('phase2.ledger', 0))")
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
        with conn.transaction():  # without an archive no entry stays
            files, head = _collect(conn, batch, said)
            listed = {name: verify_bundle.sha256(content) for name, content in sorted(files.items())}
            manifest = _json({"batch": batch.code, "head": {"no": head[0], "digest": head[1]}, "files": listed})
            files[verify_bundle.MANIFEST] = manifest
            files[verify_bundle.SEAL] = verify_bundle.seal(manifest)
            if problems := verify_bundle.content_problems(files):
                raise Unsound(problems)
            content = verify_bundle.pack(files)
            path = out or settings().phase2_reports / "bundles" / f"{batch.code}-{head[0]}-{head[1][:12]}.zip"
            _write(path, content)
            stale = door.stale(conn, batch.code)
    return Bundle(path, verify_bundle.sha256(content), len(files), head, stale)


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_bytes(content)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise CouldNotRun(
            f"the bundle cannot be written: {error.strerror}", where=str(path), todo="Name a file that can be: --out."
        ) from None


def _collect(
    conn: psycopg.Connection, batch: Batch, said: dict[str, bytes]
) -> tuple[dict[str, bytes], tuple[int, str]]:
    """The files, with what was made before (`said`), and the chain's head; all of them are of one snapshot."""
    verdict = _verdict(conn, batch)
    at = verdict.body["evaluated_at"]
    if verdict.body.get("exceptions", {}) != ledger.listed(conn, batch.code, at):  # masked, it cannot be compared later
        what = f"the list is not what entry {verdict.no} says: make recon BATCH={batch.code}, or find out who did it"
        raise Unsound([Problem("phase2.exceptions", what)])
    log = _run_log(conn, batch)
    bound = said | {
        verify_bundle.EXCEPTIONS: _json(_exceptions(conn, batch, at)),
        "plan.json": _json(asdict(batch)),
        "gate_registry.csv": (DBT_PROJECT / "seeds" / "gate_registry.csv").read_bytes(),
        **_scripts(),
        "verify.py": Path(verify_bundle.__file__).read_bytes(),
        "README.txt": _README.format(
            code=batch.code, focus=batch.focus, result=verdict.body["result"], at=at, seal=verify_bundle.SEAL
        ).encode(),
    }
    members = verify_bundle.members(bound)
    last = ledger.latest(conn, "bundle", batch=batch.code)
    if last is None or last.body["members"] != members:
        ledger.append(conn, "bundle", batch=batch.code, body={"members": members})
    chain = conn.execute("select entry_no, entry, digest from phase2.ledger order by entry_no").fetchall()
    entries = [json.loads(text) for _, text, _ in chain]
    certificates = verify_bundle.certificates(entries, batch.code)
    # of a backup's entry the files are the customers' data: they stay where they are
    named = [verdict.body.get("files"), *(entry["body"].get("files") for entry in certificates)]
    files = {
        **_named_files(named),
        **bound,
        verify_bundle.LEDGER: "".join(
            json.dumps({"no": no, "entry": text, "digest": sha}, ensure_ascii=False) + "\n" for no, text, sha in chain
        ).encode(),
        **{name: _json(rows) for name, rows in log.items()},
        verify_bundle.RESULTS: _json(verify_bundle.results(log["run_log/steps.json"])),
        verify_bundle.CERTIFICATES: _json(certificates),
        verify_bundle.DECISIONS: _json(verify_bundle.decisions(entries)),
    }
    return files, (chain[-1][0], chain[-1][2])


def _verdict(conn: psycopg.Connection, batch: Batch) -> ledger.Entry:
    verdict = ledger.latest(conn, "verdict", batch=batch.code)
    if verdict is None:
        raise CouldNotRun(
            f"batch {batch.code} has no verdict to give evidence of",
            where="phase2.ledger",
            todo=f"Run it first: make run BATCH={batch.code}",
        )
    return verdict


def _run_log(conn: psycopg.Connection, batch: Batch) -> dict[str, list[Any]]:
    """The batch's rows of each table that the ledger mirrors."""
    log: dict[str, list[Any]] = {}
    for name, (kind, key) in verify_bundle.MIRRORED.items():
        schema, table, _ = ledger.MIRRORED[kind]
        column = "batch_code" if kind == "script" else "batch"
        if conn.execute("select to_regclass(%s) is null", (f"{schema}.{table}",)).fetchone() == (True,):
            log[name] = []  # batch A's rollback takes migration_run_log along
            continue
        rows = conn.execute(
            sql.SQL(
                "select to_jsonb(t) - 'recorded' from {} as t"
                " where t.{} = %s and to_jsonb(t) ->> 'status' is distinct from 'RUNNING' order by t.{}"
            ).format(sql.Identifier(schema, table), sql.Identifier(column), sql.Identifier(key)),
            (batch.code,),
        )
        log[name] = [row for (row,) in rows]
    return log


def _exceptions(conn: psycopg.Connection, batch: Batch, at: str) -> list[dict[str, Any]]:
    """The lists behind the gates of one evaluation, masked."""
    return [
        {
            "gate": gate,
            "rows": rows,
            "listed": [{**item, "key": mask_text(item["key"]), "detail": mask(item["detail"])} for item in listed],
        }
        for gate, rows, listed in conn.execute(
            """
            select
                n.gate_id,
                max(n.rows),
                jsonb_agg(
                    jsonb_build_object('entity', n.entity, 'key', n.key, 'status', n.status, 'detail', n.detail)
                    order by n.place
                )
            from (
                select
                    e.*,
                    count(*) over (partition by e.gate_id) as rows,
                    row_number() over (
                        partition by e.gate_id order by e.entity collate "C", e.key collate "C", e.exception_id
                    ) as place
                from phase2.exceptions as e
                where e.batch = %(batch)s and e.evaluated_at = %(at)s
            ) as n
            where n.place <= %(most)s
            group by n.gate_id
            order by n.gate_id collate "C"
            """,
            {"batch": batch.code, "at": at, "most": verify_bundle.MOST_EXCEPTIONS},
        )
    ]


def _named_files(named: list[Mapping[str, str] | None]) -> dict[str, bytes]:
    """What entries name in `body.files`, as far as it is still there: whether it must be, the verifier says."""
    root = settings().phase2_reports
    paths = {name: root / name for files in named for name in files or {}}
    return {verify_bundle.FILES + name: path.read_bytes() for name, path in paths.items() if path.is_file()}


def _scripts() -> dict[str, bytes]:
    folder = SQL / "phase2"
    return {
        verify_bundle.SCRIPTS + path.relative_to(folder).as_posix(): path.read_bytes()
        for path in (*folder.rglob("*.sql"), folder / "checksums.txt")
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, default=str) + "\n").encode()
