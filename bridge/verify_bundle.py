"""Verify an evidence bundle (`phase2 bundle`) with the standard library alone: no database, no network, no packages.

    python verify.py                        the unpacked bundle in which this file stands
    python verify.py bundle.zip             an archive, as it was handed over
    python verify.py bundle.zip --head …    and a digest of the chain that was kept elsewhere is in it

Recomputed are: the digest of every file, the ledger's chain from its first entry on, run log, results, certificates and
decisions from its entries (nothing more, nothing less), the reports and the other files whose digests it holds, the
scripts against their checksums, and of an archive every byte of its container. Whatever was changed or is missing is
named. Exit codes: 0 sound, 1 something is wrong, 2 could not run.

This file is also `verify.py` of each bundle, and the rules of the chain stand here alone: `phase2 verify` asks them for
the database. It needs Python 3.9 or later.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST, SEAL, LEDGER = "MANIFEST.json", "MANIFEST.sha256", "ledger.jsonl"
FILES = "files/"  # below it: what entries name in `body.files`, as they name it
SCRIPTS = "scripts/"
CHECKSUMS = SCRIPTS + "checksums.txt"

# Extracts of tables that entries mirror: file -> kind of entry, key of the row.
MIRRORED = {
    "run_log/steps.json": ("step", "step_log_id"),
    "run_log/gates.json": ("gate", "gate_result_id"),
    "run_log/scripts.json": ("script", "run_key"),
}
EXCEPTIONS, RESULTS = "run_log/exceptions.json", "dbt/run_results.json"
CERTIFICATES, DECISIONS = "certificates.json", "decisions.json"
# What is made of the ledger alone; of the rest the batch's last entry "bundle" holds the digests.
DERIVED = frozenset({LEDGER, *MIRRORED, RESULTS, CERTIFICATES, DECISIONS})
MEMBERS = DERIVED | {
    EXCEPTIONS,
    CHECKSUMS,
    "plan.json",
    "gate_registry.csv",
    "dbt/manifest.json",
    "fingerprint.json",
    "verify.py",
    "README.txt",
}
# What a run logs of itself; every other kind of entry is what people decided, or was done in their name.
LOGGED = frozenset({"run", "step", "gate", "script", "verdict", "error", "rehearsal", "drill", "bundle"})

MOST_EXCEPTIONS = 10_000  # listed of one gate; the count beside them is of all


@dataclass(frozen=True)
class Problem:
    """What is wrong, and with what."""

    where: str
    what: str


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def chain_problems(rows: Iterable[tuple[int, str, str]]) -> list[Problem]:
    """What is wrong with a chain of (number, text, digest), from its first entry on."""
    problems: list[Problem] = []
    expected_no, previous = 1, None
    for no, text, digest in rows:
        where = f"entry {no}"
        if no != expected_no:
            problems.append(Problem(where, f"entry {expected_no} is missing"))
        if sha256(text.encode()) != digest:
            problems.append(Problem(where, "its text does not have the digest that stands beside it"))
        said = _read(text)
        if not isinstance(said, dict):
            said = {}
            problems.append(Problem(where, "its text is not JSON"))
        if said.get("no") != no:
            problems.append(Problem(where, f"its text says that it is entry {said.get('no')}"))
        if said.get("previous") != previous and no == expected_no:
            problems.append(Problem(where, "it does not follow the entry before it"))
        expected_no, previous = no + 1, digest
    return problems


# --- the archive -----------------------------------------------------------------------------------------------------


def pack(files: Mapping[str, bytes]) -> bytes:
    """The archive of these files: sorted, without times, not compressed, so that equal files make equal bytes.

    Not compressed because two builds of the same compressor may differ; and because each byte of the container can
    then be recomputed.
    """
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system, member.external_attr = 3, 0o100644 << 16
            archive.writestr(member, files[name])
    return target.getvalue()


def unpack(content: bytes) -> tuple[dict[str, bytes], list[Problem]]:
    """The files of an archive, and what is wrong with its container."""
    files: dict[str, bytes] = {}
    problems: list[Problem] = []
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            for member in members:
                try:
                    files[member.filename] = archive.read(member)
                except Exception as error:  # zipfile raises many kinds of what is damaged
                    problems.append(Problem(member.filename, f"cannot be read from the archive: {error}"))
    except Exception as error:
        return {}, [Problem("the archive", f"cannot be read: {error}")]
    if not problems and (made := pack(files)) != content:
        shorter = min(len(made), len(content))
        at = next((i for i in range(shorter) if made[i] != content[i]), shorter)
        before = [m.filename for m in sorted(members, key=lambda m: m.header_offset) if m.header_offset <= at]
        where = before[-1] if before and at < archive.start_dir else "the archive"
        problems.append(Problem(where, f"its container was changed: byte {at} is not what its files make"))
    return files, problems


# --- the content -----------------------------------------------------------------------------------------------------


def content_problems(files: Mapping[str, bytes], pinned: str | None = None) -> list[Problem]:
    """What is wrong with the files of a bundle; `pinned` is a digest of the chain that was kept elsewhere."""
    if MANIFEST not in files or LEDGER not in files:
        return [Problem(name, "is not there") for name in (MANIFEST, LEDGER) if name not in files]
    manifest = _read(files[MANIFEST])
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        return [Problem(MANIFEST, "is not the manifest of a bundle")]
    problems = _file_problems(files, manifest["files"])
    rows = [_line(line) for line in files[LEDGER].decode("utf-8", "replace").splitlines()]
    problems += chain_problems(rows)
    problems += _head_problems(rows, manifest, pinned)
    said = {no: entry for no, text, _ in rows if isinstance(entry := _read(text), dict)}
    batch = str(manifest.get("batch"))
    problems += [Problem(name, "is not there: no bundle is without it") for name in sorted(MEMBERS - files.keys())]
    for name, (kind, key) in MIRRORED.items():
        problems += _row_problems(files, name, key, _told(said.values(), kind, key, batch))
    problems += _extract_problems(files, said, batch)
    problems += _evidence_problems(files, said, batch)
    told = {problem.where for problem in problems}
    problems += [problem for problem in _member_problems(files, said, batch) if problem.where not in told]
    problems += _list_problems(files, said, batch)
    problems += _script_problems(files)
    plan = _read(files.get("plan.json", b""))
    if _get(plan, "code") != manifest.get("batch"):
        problems.append(Problem("plan.json", f"is not the plan of batch {manifest.get('batch')}"))
    return problems


def seal(manifest: bytes) -> bytes:
    """The manifest's own digest, as `sha256sum --check` reads it."""
    return f"{sha256(manifest)}  {MANIFEST}\n".encode()


def _file_problems(files: Mapping[str, bytes], listed: Mapping[str, str]) -> list[Problem]:
    problems = []
    if files.get(SEAL) != seal(files[MANIFEST]):
        problems.append(Problem(MANIFEST, f"is not the one that {SEAL} tells of"))
    for name, digest in listed.items():
        if name not in files:
            problems.append(Problem(name, f"is not there; {MANIFEST} lists it"))
        elif sha256(files[name]) != digest:
            problems.append(Problem(name, f"is not the one that {MANIFEST} tells of"))
    for name in sorted(files.keys() - listed.keys() - {MANIFEST, SEAL}):
        problems.append(Problem(name, f"is not in {MANIFEST}: somebody added it"))
    return problems


def _head_problems(rows: list[tuple[int, str, str]], manifest: Mapping[str, Any], pinned: str | None) -> list[Problem]:
    problems = []
    head = {"no": rows[-1][0], "digest": rows[-1][2]} if rows else None
    if manifest.get("head") != head:
        problems.append(Problem(MANIFEST, f"its head is not the last entry of {LEDGER}: entries were cut or added"))
    if pinned and pinned not in {digest for _, _, digest in rows}:
        problems.append(Problem("head", f"the pinned digest {pinned} is not in the chain: it was cut or rewritten"))
    return problems


def certificates(said: Iterable[dict[str, Any]], batch: str) -> list[dict[str, Any]]:
    """The rehearsals of a batch, and of each of its drills the last."""
    of_batch = [entry for entry in said if entry.get("batch") == batch]
    last = {entry.get("subject"): entry.get("no") for entry in of_batch if entry.get("kind") == "drill"}
    return [
        entry
        for entry in of_batch
        if entry.get("kind") == "rehearsal"
        or (entry.get("kind") == "drill" and last[entry.get("subject")] == entry.get("no"))
    ]


def decisions(said: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in said if entry.get("kind") not in LOGGED]


def results(steps: Iterable[Any]) -> list[dict[str, Any]]:
    """What dbt did, from the rows of the step log: dbt's own run_results has paths and times in it.

    Of each step the last run that built something: a settled batch is not built again.
    """
    last = {
        row["step"]: {
            "step": row["step"],
            "run_id": row["run_id"],
            "status": row["status"],
            "project_sha256": row["checksum"],
            "nodes": row["detail"]["nodes"],
        }
        for row in sorted(steps, key=lambda row: row["step_log_id"])
        if row["kind"] == "dbt" and _get(row["detail"], "nodes")
    }
    return [last[step] for step in sorted(last)]


def _told(said: Iterable[dict[str, Any]], kind: str, key: str, batch: str) -> dict[str, tuple[int, Any]]:
    """The rows of a batch as the last entry of each has them; batch A's rollback takes the scripts' log along."""
    told: dict[str, tuple[int, Any]] = {}
    for entry in said:
        if kind == "script" and entry.get("kind") == "rollback" and entry.get("batch") == "A":
            told.clear()
        if entry.get("kind") == kind and entry.get("batch") == batch:
            row = _get(entry.get("body"), "row")
            told[str(_get(row, key))] = (entry.get("no") or 0, row)
    return told


def _row_problems(
    files: Mapping[str, bytes], name: str, key: str, told: Mapping[str, tuple[int, Any]]
) -> list[Problem]:
    """Rows of the run log that are not what the last entry of them says, are missing, or are there twice."""
    problems = []
    seen: set[str] = set()
    for row in _list(files, name):
        id_ = str(_get(row, key))
        if id_ not in told:
            problems.append(Problem(name, f"{key} {id_} is in no entry"))
        elif told[id_][1] != row:
            problems.append(Problem(name, f"{key} {id_} is not what entry {told[id_][0]} says"))
        if id_ in seen:
            problems.append(Problem(name, f"{key} {id_} is there twice"))
        seen.add(id_)
    problems += [
        Problem(name, f"{key} {id_} is not there; entry {no} tells of it")
        for id_, (no, _) in told.items()
        if id_ not in seen
    ]
    return problems


def _extract_problems(files: Mapping[str, bytes], said: Mapping[int, dict[str, Any]], batch: str) -> list[Problem]:
    """Certificates, decisions and dbt's results: exactly what the ledger makes of them."""
    steps = [row for _, row in _told(said.values(), *MIRRORED["run_log/steps.json"], batch).values()]
    made: dict[str, Any] = {CERTIFICATES: certificates(said.values(), batch), DECISIONS: decisions(said.values())}
    try:
        made[RESULTS] = results(steps)
    except (KeyError, TypeError):  # a forged entry may hold anything
        made[RESULTS] = None
    problems = []
    for name, expected in made.items():
        if name not in files or (found := _read(files[name])) == expected:
            continue
        numbers = {_get(entry, "no") for entry in found if entry not in said.values()} if _is_list(found) else set()
        which = f"entry {', '.join(sorted(map(str, numbers)))}" if numbers and name != RESULTS else "what is in it"
        problems.append(Problem(name, f"{which} is not what the ledger says"))
    return problems


def _member_problems(files: Mapping[str, bytes], said: Mapping[int, dict[str, Any]], batch: str) -> list[Problem]:
    """What is not made of the ledger: exactly the files whose digests the batch's last entry "bundle" holds."""
    entry = _last(said, "bundle", batch)
    held = _get(_get(entry, "body"), "members")
    if not isinstance(held, dict):
        return [Problem(LEDGER, f"has no entry of a bundle of batch {batch}")]
    found = members(files)
    return [
        Problem(name, f"is not the one that entry {_get(entry, 'no')} (the bundle) tells of")
        for name in sorted(held.keys() | found.keys())
        if held.get(name) != found.get(name)
    ]


def members(files: Mapping[str, bytes]) -> dict[str, str]:
    """What an entry "bundle" holds: the digests of all files that are neither made of the ledger nor named by it."""
    return {
        name: sha256(content)
        for name, content in sorted(files.items())
        if name not in DERIVED | {MANIFEST, SEAL} and not name.startswith(FILES)
    }


def _list_problems(files: Mapping[str, bytes], said: Mapping[int, dict[str, Any]], batch: str) -> list[Problem]:
    """Gates whose exceptions are not as many as the latest verdict counted."""
    verdict = _last(said, "verdict", batch)
    told = _get(_get(verdict, "body"), "exceptions")
    if not isinstance(told, dict):
        return []
    expected = {gate: _get(one, "rows") for gate, one in told.items()}
    found = {str(_get(one, "gate")): _get(one, "rows") for one in _list(files, EXCEPTIONS)}
    problems = [
        Problem(
            EXCEPTIONS, f"{gate}: {found.get(gate)} rows; entry {_get(verdict, 'no')} tells of {expected.get(gate)}"
        )
        for gate in sorted(expected.keys() | found.keys())
        if expected.get(gate) != found.get(gate)
    ]
    for one in _list(files, EXCEPTIONS):
        listed, rows = _get(one, "listed"), _get(one, "rows")
        if not (isinstance(listed, list) and isinstance(rows, int) and len(listed) == min(rows, MOST_EXCEPTIONS)):
            problems.append(Problem(EXCEPTIONS, f"{_get(one, 'gate')}: not as many are listed as it says"))
    return problems


def _last(said: Mapping[int, dict[str, Any]], kind: str, batch: str) -> Any:
    found = [entry for entry in said.values() if entry.get("kind") == kind and entry.get("batch") == batch]
    return found[-1] if found else None


def _evidence_problems(files: Mapping[str, bytes], said: Mapping[int, dict[str, Any]], batch: str) -> list[Problem]:
    """Reports and certificates: the digests that the ledger holds; the latest verdict's and all certificates'."""
    problems, named = [], set()
    verdict = _last(said, "verdict", batch)
    if verdict is None:
        problems.append(Problem(LEDGER, f"has no verdict of batch {batch}"))
    needed = {"the verdict": [verdict] if verdict else [], "a certificate": certificates(said.values(), batch)}
    tells = {entry.get("no"): what for what, entries in needed.items() for entry in entries}
    for no, entry in said.items():
        held = _get(entry.get("body"), "files")
        for name, digest in (held if isinstance(held, dict) else {}).items():
            named.add(FILES + name)
            if FILES + name not in files:
                if no in tells:
                    problems.append(Problem(FILES + name, f"is not there; entry {no} ({tells[no]}) tells of it"))
            elif sha256(files[FILES + name]) != digest:
                problems.append(Problem(FILES + name, f"is not the one that entry {no} tells of"))
    for name in sorted(files):
        if name.startswith(FILES) and name not in named:
            problems.append(Problem(name, "is in no entry of the ledger"))
    return problems


def _script_problems(files: Mapping[str, bytes]) -> list[Problem]:
    """Scripts that are not those of the list of checksums, or not those that ran."""
    problems, listed = [], set()
    for line in files.get(CHECKSUMS, b"").decode("utf-8", "replace").splitlines():
        digest, _, script = line.partition("  ")
        name = SCRIPTS + script
        listed.add(name)
        if name not in files or sha256(files[name]) != digest:
            problems.append(Problem(name, f"is not the one that {CHECKSUMS} tells of"))
    scripts = {name for name in files if name.startswith(SCRIPTS)} - {CHECKSUMS}
    problems += [Problem(name, f"is not in {CHECKSUMS}") for name in sorted(scripts - listed)]
    ran: dict[str, set[str]] = {}
    for row in _list(files, "run_log/scripts.json"):
        if _get(row, "run_status") == "SUCCEEDED":
            ran.setdefault(SCRIPTS + str(_get(row, "script_name")), set()).add(str(_get(row, "script_checksum")))
    for name, digests in sorted(ran.items()):
        if name not in files:
            problems.append(Problem(name, "is not there; the run log has it"))
        elif sha256(files[name]) not in digests:
            problems.append(Problem(name, "is not the one that ran, as the run log has it"))
    return problems


def _line(line: str) -> tuple[int, str, str]:
    said = _read(line)
    no, text, digest = _get(said, "no"), _get(said, "entry"), _get(said, "digest")
    return (no if isinstance(no, int) else 0, text if isinstance(text, str) else "", str(digest))


def _list(files: Mapping[str, bytes], name: str) -> list[Any]:
    said = _read(files.get(name, b"[]"))
    return said if _is_list(said) else []  # not JSON any more: its digest has told of it


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _read(text: str | bytes) -> Any:
    """JSON, or None when it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


# --- the command -----------------------------------------------------------------------------------------------------


def check(place: Path, pinned: str | None = None) -> tuple[list[Problem], dict[str, Any]]:
    """What is wrong with an archive or an unpacked folder, and its manifest. OSError when it cannot be read."""
    if place.is_dir():
        files = {
            path.relative_to(place).as_posix(): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()
        }
        problems: list[Problem] = []
    else:
        files, problems = unpack(place.read_bytes())
    if files:
        unread = {problem.where for problem in problems}
        problems += [problem for problem in content_problems(files, pinned) if problem.where not in unread]
    manifest = _read(files.get(MANIFEST, b""))
    return problems, manifest if isinstance(manifest, dict) else {}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verify an evidence bundle: one changed byte anywhere is named.")
    parser.add_argument("bundle", nargs="?", help="the archive or its folder (this file's own)")
    parser.add_argument("--head", help="a digest of the chain that was kept elsewhere: it must be in it")
    chosen = parser.parse_args(arguments)
    place = Path(chosen.bundle) if chosen.bundle else Path(__file__).resolve().parent
    try:
        problems, manifest = check(place, chosen.head)
    except OSError as error:
        print(f"cannot read {place}: {error.strerror or error}", file=sys.stderr)
        return 2
    for problem in problems:
        print(f"{problem.where}: {problem.what}")
    head = _get(manifest, "head")
    print(
        f"batch {manifest.get('batch')}: {len(manifest.get('files', {}))} files, {_get(head, 'no')} entries, "
        f"{len(problems) or 'no'} problems"
    )
    print(f"head {_get(head, 'digest')}")
    if not place.is_dir():
        print(f"sha256 of the archive {sha256(place.read_bytes())}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
