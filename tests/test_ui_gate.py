"""The UI release gate in a real Chromium, on a page that a test changes."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from bridge import ledger, postgres, ui_gate
from bridge.cli import app
from bridge.errors import CouldNotRun
from bridge.settings import settings
from tests import serving

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ui_gate.BROWSERS)), reason="no Chromium here: apt-get install chromium"
)

PAGE = """<!doctype html><title>shop</title><body style="margin:0;background:{colour};font:20px sans-serif">
<h1>{title}</h1><p class="clock">{clock}</p><div style="height:{height}px"></div>
<form><input name="name"><button>in</button></form>
<style>@keyframes x {{ from {{ opacity: 0 }} to {{ opacity: 1 }} }} h1 {{ animation: x 7s infinite }}</style>"""


class Site(HTTPServer):
    """One page, made of what a test says; `status` is what it answers, and to strangers who ask for /private."""

    def __init__(self) -> None:
        self.says = {"colour": "#fff", "title": "Tours", "clock": "10:00", "height": "200"}
        self.status, self.to_strangers = 200, 403
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        stranger = self.path == "/private" and "name=ayu" not in (self.headers["cookie"] or "")
        self.send_response(self.server.to_strangers if stranger else self.server.status)
        self.send_header("content-type", "text/html")
        if "?" in self.path:  # of the form
            self.send_header("set-cookie", self.path.split("?")[1])
        self.end_headers()
        known = "name=ayu" in (self.path + (self.headers["cookie"] or ""))
        self.wfile.write((PAGE.format(**self.server.says) + "<p class=who>ayu" * known).encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(scope="module")
def ops() -> Iterator[str]:
    with serving.empty(os.environ["TEST_PG_URL"]) as url:
        yield url


@pytest.fixture
def conn(ops: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    """The ops database, and the page in two sizes as the configured one, its clock masked."""
    for role in ("OPS", "BALISNAP", "BSTADMIN"):
        monkeypatch.setenv(f"{role}_DB_URL", ops if role == "OPS" else f"{ops}_{role.lower()}")
    monkeypatch.setenv("PHASE2_REPORTS", str(tmp_path))
    pages = tmp_path / "pages.json"
    pages.write_text(
        json.dumps(
            {
                "base": f"http://127.0.0.1:{site.server_port}",
                "sizes": {"desktop": [360, 240], "phone": [200, 240]},
                "pages": [{"name": "shop", "url": "/", "masks": [".clock"]}],
            }
        )
    )
    monkeypatch.setenv("PHASE2_UI_PAGES", str(pages))
    settings.cache_clear()
    with postgres.connect(ops, autocommit=True) as made:
        yield made
    settings.cache_clear()


def states(conn: psycopg.Connection) -> dict[str, str]:
    return {one.item: one.state for one in ui_gate.check(conn, ui_gate.read()).compared}


def gate(conn: psycopg.Connection) -> dict[str, bool]:
    """What gate G-07 reads."""
    rows = conn.execute(
        "select i.item, i.passed from phase2.gate_inputs as i where i.gate_id = 'G-07' and i.run_id ="
        " (select l.run_id from phase2.gate_inputs as l where l.gate_id = 'G-07' order by gate_input_id desc limit 1)"
    )
    return dict(rows.fetchall())


def test_no_drift_passes_planted_drift_fails_masked_drift_passes_and_approval_makes_it_pass(
    conn: psycopg.Connection, site: Site, tmp_path: Path
) -> None:
    assert states(conn) == {"shop-desktop": "NEW", "shop-phone": "NEW"}  # nobody has approved anything yet
    assert gate(conn) == {"shop-desktop": False, "shop-phone": False}
    approved = ui_gate.approve(conn, "the first ones, looked at by Ayu")
    site.says["clock"] = "17:25"  # masked
    assert states(conn) == {"shop-desktop": "SAME", "shop-phone": "SAME"}
    assert gate(conn) == {"shop-desktop": True, "shop-phone": True}
    entry = ledger.latest(conn, "ui-approval", subject="shop-desktop")
    assert entry is not None
    assert entry.body == {"sha256": approved[0].digest, "reason": "the first ones, looked at by Ayu"}

    site.says |= {"title": "Trips", "clock": "23:59"}
    drifted = ui_gate.check(conn, ui_gate.read())
    assert {one.state for one in drifted.compared} == {"DRIFT"}
    assert gate(conn) == {"shop-desktop": False, "shop-phone": False}
    page = drifted.report.read_text()
    for one in drifted.compared:
        for picture in (one.baseline, one.candidate, one.difference):
            assert picture is not None
            assert (drifted.folder / picture).read_bytes().startswith(b"\x89PNG")
            assert f'src="{picture}"' in page
    ui_gate.approve(conn, "a new heading", ("shop-phone",))
    assert states(conn) == {"shop-desktop": "DRIFT", "shop-phone": "SAME"}
    ui_gate.approve(conn, "a new heading")

    site.says["height"] = "900"
    baseline = tmp_path / "ui" / "baselines" / "shop-phone.png"
    shutil.copyfile(baseline.with_name("shop-desktop.png"), baseline)  # somebody changes a baseline behind our back
    assert states(conn) == {"shop-desktop": "ANOTHER_SIZE", "shop-phone": "NEW"}
    assert ledger.verify(conn) == []


def test_pictures_of_old_checks_go_and_what_they_found_stays(
    conn: psycopg.Connection, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.says["title"] = "before"
    old, latest = (ui_gate.check(conn, ui_gate.read()) for _ in range(2))
    assert ui_gate.forget() == 0
    now = ui_gate.runlog.utc_now() + ui_gate.KEPT
    monkeypatch.setattr(ui_gate.runlog, "utc_now", lambda: now + timedelta(minutes=1))
    assert ui_gate.forget() == len(list(latest.folder.glob("*.png"))) > 0
    assert sorted(path.name for path in old.folder.iterdir()) == ["index.html", "result.json"]
    assert [one for one in ledger.verify(conn) if old.folder.name in one.where] == []
    ui_gate.approve(conn, "the latest one's are there")


def test_what_cannot_be_approved(conn: psycopg.Connection, site: Site) -> None:
    with pytest.raises(CouldNotRun, match="nothing was checked"):
        ui_gate.approve(conn, "why")
    site.says["colour"] = "#eee"
    checked = ui_gate.check(conn, ui_gate.read())
    for reason, items, said in ((" ", (), "reason"), ("why", ("shop-tablet",), "shop-tablet")):
        with pytest.raises(CouldNotRun, match=said):
            ui_gate.approve(conn, reason, items)
    (checked.folder / "shop-phone.png").write_bytes(b"another")
    with pytest.raises(CouldNotRun, match="not the one that was checked"):
        ui_gate.approve(conn, "why")


def test_the_commands_and_a_page_that_fails(conn: psycopg.Connection, site: Site) -> None:
    def phase2(*arguments: str) -> Any:
        return CliRunner().invoke(app, list(arguments))

    site.says["colour"] = "#ddd"
    drifted = phase2("ui", "check")
    assert drifted.exit_code == 1, drifted.output
    assert "index.html" in drifted.output
    assert "approved: shop-phone" in phase2("ui", "approve", "--reason", "grey").output
    said = phase2("ui", "check", "--json")
    assert said.exit_code == 0
    assert {one["state"] for one in json.loads(said.stdout)["compared"]} == {"SAME"}
    site.status = 500
    failed = phase2("ui", "check")
    assert isinstance(failed.exception, CouldNotRun)
    assert "shop answers 500" in str(failed.exception)


def test_pages_behind_a_sign_in(
    conn: psycopg.Connection, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {
        "base": f"http://127.0.0.1:{site.server_port}",
        "sizes": {"phone": [200, 240]},
        "sign_in": {"url": "/", "fill": {"input": "$WHO_LOOKS"}, "press": "button", "proof": ".who"},
        "pages": [{"name": "private", "url": "/private"}, {"name": "open", "url": "/", "signed_in": False}],
    }
    with pytest.raises(CouldNotRun, match="WHO_LOOKS is not set"):
        ui_gate.check(conn, ui_gate.Pages.model_validate(said))
    monkeypatch.setenv("WHO_LOOKS", "ayu")
    checked = ui_gate.check(conn, ui_gate.Pages.model_validate(said))
    assert [one.item for one in checked.compared] == ["private-phone", "open-phone"]

    monkeypatch.setattr(ui_gate, "PROOF_SECONDS", 0.3)
    site.to_strangers = 200  # the form again, which could be compared with itself for ever
    monkeypatch.setenv("WHO_LOOKS", "somebody else")
    with pytest.raises(CouldNotRun, match="cannot sign in"):
        ui_gate.check(conn, ui_gate.Pages.model_validate(said))
    monkeypatch.setenv("WHO_LOOKS", "ayu")
    said["pages"][0]["url"] = f"http://localhost:{site.server_port}/private"  # where nobody has signed in
    with pytest.raises(CouldNotRun, match="private cannot be pictured"):
        ui_gate.check(conn, ui_gate.Pages.model_validate(said))


def test_a_check_counts_for_its_release_alone(
    conn: psycopg.Connection, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def confirmed() -> str:
        why = ui_gate.confirm(conn)
        assert gate(conn)["of this release"] is (not why)
        return why

    site.says["colour"] = "#abc"
    states(conn)
    ui_gate.approve(conn, "blue")
    assert confirmed() == "the latest check is of other baselines"
    states(conn)
    assert confirmed() == ""
    assert all(gate(conn).values())

    pages = tmp_path / "pages.json"
    said = pages.read_text()
    pages.write_text(said.replace('".clock"', '".clock", "body"'))  # everything is masked
    assert confirmed() == "the latest check is of other pages"
    pages.unlink()
    assert confirmed() == "there is no file of pages"
    pages.write_text(said)
    assert confirmed() == ""
    with monkeypatch.context() as patch:
        console = tmp_path / "core_api" / "console.css"
        console.parent.mkdir()
        console.write_text("body { color: red }")
        patch.setattr(ui_gate, "ROOT", tmp_path)
        assert confirmed() == "the latest check is of other code"
    with monkeypatch.context() as patch:
        later = ui_gate.runlog.utc_now() + ui_gate.policy().ui_check
        patch.setattr(ui_gate.runlog, "utc_now", lambda: later)
        assert "the latest check is of 2" in confirmed()
    assert confirmed() == ""


def test_a_file_of_pages_is_held_against_its_shape(tmp_path: Path) -> None:
    file = tmp_path / "pages.yml"
    file.write_text("base: http://x\nsizes: {a: [1, 1]}\npages: [{name: ../up, url: /}]\n")
    with pytest.raises(CouldNotRun, match="name"):
        ui_gate.read(file)
    with pytest.raises(CouldNotRun, match="no file"):
        ui_gate.read(tmp_path / "nowhere.yml")
    assert ui_gate.read(settings().phase2_ui_pages).pages
