"""Writing a report: three files beside each other, none of them ever overwritten."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import psycopg
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bridge import gates
from bridge.reports import draw
from bridge.reports.document import document, plain_json


@dataclass(frozen=True)
class Written:
    """The three files of a report and the SHA-256 of the JSON one."""

    json: Path
    md: Path
    html: Path
    digest: str


def write(conn: psycopg.Connection, verdict: gates.Verdict, root: Path) -> Written:
    """Write the report of `verdict` below `root` as recon/{batch}/{timestamp}.json, .md and .html.

    The timestamp is the evaluation's, in UTC; a second report of the same second gets `-2`, and so on.
    """
    content = document(conn, verdict)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    words, page = markdown(content, digest), html(content, digest)
    folder = root / "recon" / verdict.batch
    folder.mkdir(parents=True, exist_ok=True)
    record = _place(folder, verdict.evaluated_at)
    written = Written(record, record.with_suffix(".md"), record.with_suffix(".html"), digest)
    _replace(written.md, words)
    _replace(written.html, page)
    _replace(written.json, text)
    return written


def drill(content: dict[str, Any], root: Path) -> Written:
    """Write the report of a drill below `root` as drills/{drill}/{timestamp}.json, .md and .html."""
    plain = plain_json(content)
    text = json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    folder = root / "drills" / content["drill"]
    folder.mkdir(parents=True, exist_ok=True)
    record = _place(folder, content["ended_at"])
    written = Written(record, record.with_suffix(".md"), record.with_suffix(".html"), digest)
    for path, escape, template in ((written.md, False, "drill.md.j2"), (written.html, True, "drill.html.j2")):
        _replace(path, _templates(escape).get_template(template).render(told=plain, digest=digest, draw=draw))
    _replace(written.json, text)
    return written


def guardrails(content: dict[str, Any], at: datetime, root: Path) -> Path:
    """Write the page of the guardrails below `root` as guardrails/{timestamp}.html."""
    folder = root / "guardrails"
    folder.mkdir(parents=True, exist_ok=True)
    page = _place(folder, at, ".html")
    said = content | {"at": f"{at:%Y-%m-%d %H:%M:%S}", "bali": f"{at + timedelta(hours=8):%Y-%m-%d %H:%M}"}
    _replace(page, _templates(True).get_template("guardrails.html.j2").render(said))
    return page


def daily(document: dict[str, Any], root: Path) -> tuple[Path, Path]:
    """Write the report of the day below `root` as daily/{day}.json and .html; the day's earlier one is replaced."""
    folder = root / "daily"
    folder.mkdir(parents=True, exist_ok=True)
    record, page = folder / f"{document['day']}.json", folder / f"{document['day']}.html"
    _replace(page, _templates(True).get_template("daily.html.j2").render(document, draw=draw))
    _replace(record, json.dumps(plain_json(document), indent=2, ensure_ascii=False) + "\n")
    return record, page


def ui(compared: Sequence[Any], folder: Path) -> Path:
    """Write the report of a check of pages beside its pictures, as index.html."""
    page = folder / "index.html"
    drifted = [one for one in compared if one.state != "SAME"]
    _replace(page, _templates(True).get_template("ui.html.j2").render(compared=compared, drifted=drifted, draw=draw))
    return page


def found(files: Mapping[str, str], root: Path) -> Written | None:
    """The report that an entry of the ledger names by its `files`; None when it names none."""
    record = next((name for name in files if name.endswith(".json")), None)
    if record is None:
        return None
    path = root / record
    return Written(path, path.with_suffix(".md"), path.with_suffix(".html"), files[record])


def markdown(content: dict[str, Any], digest: str) -> str:
    """The document as Markdown."""
    return _templates(False).get_template("report.md.j2").render(report=content, digest=digest, draw=draw)


def html(content: dict[str, Any], digest: str) -> str:
    """The document as one self-contained page: no script, no outside host."""
    return _templates(True).get_template("report.html.j2").render(report=content, digest=digest, draw=draw)


def explanation(document: dict[str, Any]) -> str:
    """What `phase2 explain` found, as one self-contained page."""
    return _templates(True).get_template("explain.html.j2").render(told=document, draw=draw)


def _place(folder: Path, at: datetime, suffix: str = ".json") -> Path:
    """A name that nobody has, taken by creating it."""
    stamp = at.astimezone(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    number = 1
    while True:
        path = folder / f"{stamp}{'' if number == 1 else f'-{number}'}{suffix}"
        try:
            path.open("x").close()
        except FileExistsError:
            number += 1
        else:
            return path


def _replace(path: Path, text: str) -> None:
    """All of it or nothing: a reader never meets half a report."""
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


@lru_cache(maxsize=2)
def _templates(escape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = draw.number
    return environment
