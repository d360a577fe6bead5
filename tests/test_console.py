"""The console in a real browser: each page's main task by mouse and by keyboard, who may what, and hostile input."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from bridge import daily, flags, ledger, postgres, rollout, signoff, sources, stop, ui_gate
from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun
from bridge.policy import POLICIES
from bridge.settings import ROOT, settings
from core_api import database, minutes
from core_api.console import access, frame
from core_api.console import session as sessions
from tests import pipeline, serving
from tests.write_parts import Sides

AS_OF = date(2026, 11, 23)
WRITES = os.environ.get("CONSOLE_SHOTS") == "write"
HOSTILE = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>\'"><svg onload=window.hit=1>'
EVIL = "Sunrise Trek" if WRITES else HOSTILE
NOBODY = "00000000-0000-4000-8000-000000000000"
# what a smaller, darker window changes, and all of it
RULES = {
    "dark": {"type": "rule", "values": ["color-contrast", "target-size", "meta-viewport"]},
    "light": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
}
BY_MOUSE_ALONE = (
    "[...document.querySelectorAll('button, a[href], input:not([type=hidden]), select, summary, [onclick], [hx-post]')]"
    ".filter(e => e.tabIndex < 0 || e.disabled).map(e => e.outerHTML)"
)
SHOTS = ROOT / "docs" / "console"
_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Shop:
    """A console in front of a small shop with something of everything."""

    url: str
    ops: str
    bstadmin: str
    letters: list[str]  # dead letters: READY, then OPEN ones
    queue: list[str]  # open rows: the first two have the same candidate
    conflict: str
    booking: str  # its ref

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with postgres.connect(self.ops, autocommit=True) as conn:
            done = conn.execute(statement.encode(), values or None)
            return done.fetchall() if done.description else []

    def entries(self, *kinds: str) -> list[ledger.Entry]:
        with postgres.connect(self.ops, read_only=True) as conn:
            return ledger.entries(conn, *kinds)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with (
        pytest.MonkeyPatch.context() as patch,
        serving.environment(),
        pipeline.fresh(os.environ["TEST_PG_URL"], empty=True) as made,
    ):
        patch.setenv("PHASE2_REPORTS", str(tmp_path_factory.mktemp("reports")))
        settings.cache_clear()
        dbs = made.databases
        sources.create(dbs.balisnap, dbs.bstadmin, bookings=40, seed=7, as_of=AS_OF)
        made.run("A", "C", AS_OF)
        made.run("D", "D", AS_OF, gates=False)
        with postgres.connect(dbs.ops, autocommit=True) as conn:
            daily.make(conn)
        with serving.service(dbs.ops, bstadmin_url=dbs.bstadmin, bstadmin_write_url=dbs.bstadmin) as url:
            yield _with_work(url, dbs.ops, dbs.bstadmin)
        settings.cache_clear()


def _with_work(url: str, ops: str, bstadmin: str) -> Shop:
    """Dead letters, queue rows and a conflict, all with hostile words in what people have written."""
    shop = Shop(url, ops, bstadmin, [], [], "", "")
    with httpx.Client(base_url=url, timeout=20) as client:
        for number in range(4):
            sent = serving.post(
                client,
                serving.event(
                    externalBookingRef=f"WEB-{number}-{uuid4().hex[:6]}".upper(),
                    customer={"name": f"Wayan {EVIL}", "email": "wayan@hidden.test", "phone": "+6281999888777"},
                    booking__note=EVIL,
                    booking__pickupLocation=f"Villa {EVIL}",
                    raw={"providerPayload": {"guestName": "Secret Guest", "html": EVIL}},
                ),
            )
            event_id = sent.json()["data"]["eventId"]
            admin = {"authorization": f"Bearer {serving.ADMIN}", "x-admin-role": "ADMIN", "x-actor": "ayu"}
            failed = client.post(
                f"{serving.PATH}/{event_id}/fail",
                json={"reasonCode": "SCHEMA_INVALID", "reasonDetail": f"said {EVIL} to wayan@hidden.test"},
                headers=admin,
            )
            shop.letters.append(failed.json()["data"]["deadLetterKey"])
        client.patch(f"/v1/ingest/dead-letter/{shop.letters[0]}/status/READY", headers=admin)
    product = shop.sql("select product_key from public.catalog_product order by name limit 1")[0][0]
    for number in range(5):
        key = str(uuid4())
        cause = {"cause": "more than one product fits", "package_name": EVIL, "slug": "s",
                 "candidates": [{"product_key": str(product), "level": 2}]}  # fmt: skip
        shop.sql(
            "insert into public.unmapped_queue (queue_key, queue_type, channel_code, source_system, source_table,"
            " source_pk, reason_code, reason_detail, status, payload, created_at)"
            " values (%s, 'PRODUCT_MAPPING', 'MANUAL', 'bstadmin', 'tour_packages', %s, 'MULTI_MATCH',"
            " %s, 'OPEN', %s::jsonb, now() + %s * interval '1 s')",
            key, f"9000{number}",
            "package_name: more than one product fits" if number < 4 else f"said {EVIL} to wayan@hidden.test",
            json.dumps({"causes": [cause], "main_name": "Secret Guest"}), number,
        )  # fmt: skip
        shop.queue.append(key)
    both = Sides(ops, bstadmin)
    booking = _both_sides(shop, both)
    shop.booking = shop.sql("select external_booking_ref from public.booking_core where booking_key = %s", booking)[0][
        0
    ]
    fields = [{"field": "note", "core": EVIL, "legacy": "Secret Guest"}]
    shop.sql("select phase2.note_conflict(%s, 'choice', %s::jsonb, 'a test', null)", booking, json.dumps(fields))
    shop.conflict = str(shop.sql("select conflict_id from phase2.conflicts where status = 'OPEN'")[0][0])
    return shop


def _both_sides(shop: Shop, both: Sides) -> UUID:
    """A booking of the shop that bstadmin has too, with another note there."""
    key, id_ = shop.sql(
        "select r.entity_key, r.external_ref::integer from public.channel_external_refs as r"
        " join public.booking_core as c on c.booking_key = r.entity_key"
        " where r.external_ref_kind = 'BSTADMIN_BOOKING_ID' order by c.tour_date desc limit 1"
    )[0]
    shop.sql("update public.booking_core set note = %s where booking_key = %s", EVIL, key)
    with psycopg.connect(shop.bstadmin, autocommit=True) as conn:
        conn.execute(
            "update public.bookings set note = 'Secret Guest', updated_at = now() at time zone 'UTC'"
            " where booking_id = %s",
            (id_,),
        )
    return key


# -- people -----------------------------------------------------------------------------------------------------------


def cookie(name: str = "ayu", role: str = "ADMIN") -> dict[str, str]:
    return {sessions.cookie_name(): sessions.sealed(sessions.opened(core_settings(), name, role), core_settings())}


@contextmanager
def signed_in(shop: Shop, role: str = "ADMIN", name: str = "ayu") -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shop.url, timeout=30, cookies=cookie(name, role)) as client:
        yield client


def token(client: httpx.Client) -> str:
    return csrf(client.get("/console/bookings").text)


def csrf(text: str) -> str:
    found = re.search(r'name="token" value="([0-9a-f]{64})"', text)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if _CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@contextmanager
def at(browser: Browser, shop: Shop, role: str = "ADMIN", name: str = "ayu", **options: Any) -> Iterator[Page]:
    """A page of somebody who has signed in; whatever it asks another host for is a failure."""
    context = browser.new_context(base_url=shop.url, **options)
    context.add_cookies([{"name": n, "value": v, "url": shop.url} for n, v in cookie(name, role).items()])
    page = context.new_page()
    page.set_default_timeout(8000)
    outside: list[str] = []
    page.on("request", lambda r: None if r.url.startswith((shop.url, "data:")) else outside.append(r.url))
    page.on("console", lambda m: outside.append(m.text) if "Content Security Policy" in m.text else None)
    yield page
    context.close()
    assert outside == []


# -- each page's main task, by mouse and by keyboard ------------------------------------------------------------------

Hand = Callable[[Page, str], None]


def by_mouse(page: Page, selector: str) -> None:
    page.locator(selector).first.click()


def by_keyboard(page: Page, selector: str) -> None:
    """Walk there with Tab, as somebody without a mouse does; what cannot be reached is not there."""
    target = page.locator(selector).first
    radio = target.get_attribute("name") if target.get_attribute("type") == "radio" else None
    for _ in range(150):
        if target.evaluate("e => e === document.activeElement"):
            break
        among = radio and page.evaluate("document.activeElement.name") == radio
        page.keyboard.press("ArrowDown" if among else "Tab")
    else:
        raise AssertionError(f"no way to {selector} by keyboard")
    kind = target.evaluate("e => (e.type || e.tagName).toLowerCase()")
    page.keyboard.press("Space" if kind in ("checkbox", "radio") else "Enter")


@pytest.fixture(params=[by_mouse, by_keyboard], ids=["mouse", "keyboard"])
def hand(request: pytest.FixtureRequest) -> Hand:
    return request.param


def said(page: Page, words: str) -> None:
    page.get_by_role("status").get_by_text(words).wait_for()


def test_signing_in_and_out(browser: Browser, shop: Shop) -> None:
    """By keyboard alone: to the page that was asked for; a new id; and out again."""
    context = browser.new_context(base_url=shop.url)
    page = context.new_page()
    page.goto("/console/queue")
    assert "/console/sign-in" in page.url
    before = context.cookies()[0]["value"]
    page.keyboard.press("Tab")
    for words in ("ayu", "wrong"):
        page.keyboard.press("Tab")
        page.keyboard.type(words)
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    page.fill("#password", sessions.local_password(core_settings()))
    page.select_option("#role", "Ops Lead")
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/queue")
    held = context.cookies()[0]
    assert (held["httpOnly"], held["sameSite"], held["value"] != before) == (True, "Strict", True)
    page.get_by_role("button", name="Sign out").click()
    said(page, "signed out")
    with httpx.Client(base_url=shop.url, cookies={held["name"]: held["value"]}) as client:
        assert client.get("/console").status_code == 303
    context.close()


def test_stopping_and_lifting(browser: Browser, shop: Shop, hand: Hand) -> None:
    with at(browser, shop, role="Ops Lead", name="kadek") as page:
        page.goto("/console")
        page.fill("#stop-reason", "the shop sells twice")
        hand(page, "button.danger")
        said(page, "on hold")
        page.get_by_text("the shop sells twice", exact=True).wait_for()
        page.fill("#resume-reason", "mended")
        hand(page, "button.danger")
        said(page, "lifted")
        page.goto("/console/audit?kind=resume&actor=kadek")
        assert "Ops Lead" in page.get_by_role("region", name="Entries").inner_text(), "who, in which role"
    last = shop.entries("stop", "resume")[-2:]
    assert [(e.kind, e.actor, e.body["role"], e.body["reason"]) for e in last] == [
        ("stop", "kadek", "Ops Lead", "the shop sells twice"),
        ("resume", "kadek", "Ops Lead", "mended"),
    ]


def test_a_guardrail_s_stop_is_read_and_lifted(browser: Browser, shop: Shop, hand: Hand) -> None:
    """What was measured and drawn, what to check; and from there to where a person lifts it."""
    shop.sql(
        "insert into phase2.guardrail_log (guardrail, at, status, value, threshold, batch, words)"
        " select 'api-5xx', now() - n * interval '5 minutes', case n when 0 then 'BREACH' else 'OK' end,"
        " case n when 0 then 0.2 else 0.001 end, 0.015, 'F', '20 % of 400 answers' from generate_series(0, 3) as n"
    )
    with postgres.connect(shop.ops, autocommit=True) as conn:
        stop.ask(conn, "API 5xx: 20 % of 400 answers", subject="api-5xx", batch="F", actor="guardrail")
    with at(browser, shop, role="Tech Lead") as page:
        page.goto("/console")
        hand(page, 'nav a[href="/console/guardrails"]')
        page.get_by_role("alert").get_by_text("API 5xx: 20 % of 400 answers").wait_for()
        row = page.get_by_role("row", name=re.compile("G-03"))
        row.get_by_role("img", name=re.compile("4 measurements, 1 beyond its limit")).wait_for()
        row.get_by_text("BREACH").wait_for()
        assert len(row.get_by_role("cell").last.inner_text()) > 20, "what to check"
        hand(page, "[role=alert] a[href='/console']")
        page.fill("#resume-reason", "the deploy was taken back")
        hand(page, "button.danger")
        said(page, "lifted")
    shop.sql("delete from phase2.guardrail_log")


def test_a_stop_file_that_no_run_has_noted_is_shown_and_lifted(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no entry of the ledger yet. Lifting takes it away, unless another stop came after the page was seen."""
    file = tmp_path / "stop"
    file.write_text("payments look wrong")
    monkeypatch.setattr(stop, "file", lambda: file)
    with signed_in(shop, "STAFF") as client:
        assert client.get("/console").status_code == 200
    with signed_in(shop, "Ops Lead") as client:
        shown = client.get("/console")
        assert shown.status_code == 200
        assert "payments look wrong" in shown.text
        assert "lifting the hold removes it" in shown.text
        [seen] = re.findall(r'name="seen" value="(.*?)"', shown.text)
        sent = {"token": csrf(shown.text), "reason": "mended", "seen": seen}
        with postgres.connect(shop.ops, autocommit=True) as conn:
            came = stop.ask(conn, "events are lost")
        assert client.post("/console/resume", data=sent).status_code == 409
        assert file.exists()
        assert client.post("/console/resume", data=sent | {"seen": str(came.no)}).status_code == 303
        assert not file.exists()
        assert 'id="stop"' not in client.get("/console").text


def test_a_batch_shows_its_gates_and_gives_its_report(browser: Browser, shop: Shop, hand: Hand) -> None:
    with at(browser, shop, role="STAFF") as page:
        page.goto("/console")
        hand(page, 'a[href="/console/batches/C"]')
        page.locator("#C-01 svg.chart").wait_for()
        assert page.get_by_role("region", name="Parity").get_by_role("row").count() > 5
        with page.expect_download() as loading:
            hand(page, 'a[href$="/json"]')
        written = Path(loading.value.path()).read_bytes()
    verdict = shop.entries("verdict")[-1]
    assert hashlib.sha256(written).hexdigest() in verdict.body["files"].values()


def test_the_day_is_read_its_report_taken_home_and_the_end_looked_at(browser: Browser, shop: Shop, hand: Hand) -> None:
    """Each gate beside its two weeks, drawn; the report's own file; and what the end of phase 2 still lacks."""
    with at(browser, shop, role="STAFF") as page:
        page.goto("/console")
        hand(page, 'nav a[href="/console/daily"]')
        row = page.get_by_role("row", name=re.compile("C C-01"))
        row.get_by_role("img", name=re.compile("evaluations in two weeks")).wait_for()
        with page.expect_download() as loading:
            hand(page, 'a[href$="/html"]')
        written = Path(loading.value.path()).read_bytes()
        hand(page, 'nav a[href="/console/exit-criteria"]')
        page.get_by_role("heading", name="When phase 2 is done").wait_for()
        lines = page.get_by_role("region", name="Exit criteria").get_by_role("row")
        assert lines.count() == 6
        assert "this is local, not production" in lines.nth(1).inner_text()
        assert "run A to E there" in lines.nth(1).inner_text()
    [entry] = shop.entries("daily")
    assert hashlib.sha256(written).hexdigest() in entry.body["digests"].values()


def test_ingestion_draws_its_hour(browser: Browser, shop: Shop, hand: Hand) -> None:
    """Throughput, latency, lag and errors, each drawn and in words; what the service notes of the queue by itself."""
    event = shop.sql("select event_key from public.ingest_event_log limit 1")[0][0]
    shop.sql("delete from phase2.queue_minutes")
    shop.sql("delete from phase2.api_minutes")
    shop.sql(
        "update public.ingest_event_log set process_status = 'RECEIVED', request_received_at = now() - interval '90 s'"
        " where event_key = %s", event,
    )  # fmt: skip

    async def look() -> None:
        async with database.pool(shop.ops, size=1, application_name="phase2-test") as pool:
            await minutes.Minutes().flush(pool)

    with ThreadPoolExecutor(1) as apart:  # the browser of the other tests has this thread's event loop
        apart.submit(lambda: asyncio.run(look())).result()
    [(pending, oldest)] = shop.sql("select pending, oldest_seconds::float8 from phase2.queue_minutes")
    assert (pending, 90 <= oldest < 150) == (1, True)
    shop.sql("update public.ingest_event_log set process_status = 'FAILED' where event_key = %s", event)
    shop.sql("update phase2.queue_minutes set minute = minute - interval '9 minutes', oldest_seconds = 777")
    shop.sql("insert into phase2.api_minutes select date_trunc('minute', now()) - interval '5 minutes',"
             " gen_random_uuid(), 'ingest', n, e from (values (300, 0), (100, 20)) as v (n, e)")  # fmt: skip
    shop.sql(
        "insert into phase2.guardrail_log (guardrail, at, status, value, threshold, batch, words)"
        " select 'payment-mismatch', now() - n * interval '5 minutes', case n when 0 then 'BREACH' else 'OK' end,"
        " case n when 0 then 0.02 else 0.001 end, 0.005, 'F', '2 % of 400 bookings' from generate_series(0, 2) as n"
    )
    with at(browser, shop, role="STAFF") as page:
        page.goto("/console")
        hand(page, 'nav a[href="/console/ingestion"]')
        page.get_by_role("img", name="Payment mismatch: 3 measurements, 1 beyond its limit").wait_for()
        assert "G-06: 2 % of 400 bookings" in page.locator("#live").inner_text()
        for name, words in (("Events a minute", "highest"), ("applied, 95 %", "measured"), ("oldest event", "777"),
                            ("error of ours", "highest 5, ")):  # fmt: skip
            page.get_by_role("img", name=re.compile(f"{name}.*{words}")).wait_for()
        page.get_by_text("in 60 min").first.wait_for()
        assert page.locator(".card .big").first.inner_text() == str(len(shop.letters)), "all that came"
        hand(page, "#minute-by-minute summary")
        rows = page.get_by_role("region", name="Minute by minute").get_by_role("row")
        assert rows.count() == 62
        told = " ".join(rows.all_inner_texts())
        assert re.search(r"\t400\t5(\s|$)", told), "both processes in one minute"
    shop.sql("delete from phase2.guardrail_log")


def test_ingestion_looks_again_by_itself(browser: Browser, shop: Shop) -> None:
    with at(browser, shop, role="STAFF") as page:
        page.clock.install()
        page.goto("/console/ingestion")
        page.get_by_role("img", name=re.compile("Events a minute")).wait_for()
        page.focus("#to-letters")
        with page.expect_response("**/console/ingestion") as answered:
            page.clock.run_for(6000)
        assert answered.value.status == 200
        page.get_by_role("heading", name="Throughput").wait_for()
        assert page.locator("#live").count() == 1
        assert page.evaluate("document.activeElement.id") == "to-letters", "who walks by keyboard stays where they are"
        page.route("**/console/ingestion", lambda route: route.abort())
        page.clock.run_for(6000)
        page.get_by_role("alert").get_by_text("does not answer: what you see is of before").wait_for()
        page.unroute("**/console/ingestion")
        page.clock.run_for(6000)
        page.locator("#away").wait_for(state="hidden")
        page.context.clear_cookies()  # signed out elsewhere: numbers that stand still would look like a quiet hour
        page.clock.run_for(6000)
        page.get_by_role("alert").get_by_text("your session is over: sign in again").wait_for()
        assert page.get_by_role("link", name="Sign in").count() == 1


def test_a_dead_letter_is_previewed_replayed_and_closed(browser: Browser, shop: Shop, hand: Hand) -> None:
    number = 0 if hand is by_mouse else 1
    with at(browser, shop, role="MANAGER") as page:
        page.goto("/console/dead-letters")
        hand(page, f'a[href="/console/dead-letters/{shop.letters[number]}"]')
        if number:  # OPEN first
            page.fill("#move-reason", "the sender has mended it")
            hand(page, "button:text-is('Move')")
            said(page, "moved")
        hand(page, "a[role=button]")
        page.get_by_text("nothing was written").wait_for()
        assert page.get_by_role("region", name="Changes").get_by_role("row").count() > 3
        page.fill("#replay-reason", "mended")
        hand(page, "button:text-is('Replay')")
        said(page, "replay was requested")
        assert page.locator("h1 .badge").inner_text() == "REPLAYING"
        page.goto(f"/console/dead-letters/{shop.letters[2 + number]}")
        page.select_option("#status", "CLOSED")
        page.fill("#move-reason", "the guest gave up")
        hand(page, "button:text-is('Move')")
        said(page, "moved")
        assert page.locator("h1 .badge").inner_text() == "CLOSED"


def test_what_was_previewed_is_replayed_and_nothing_else(browser: Browser, shop: Shop, hand: Hand) -> None:
    """What became READY since is told, and stays; when a part has left, nothing is replayed, and the page says why."""
    first, second, third, _ = shop.letters

    def put(key: str, status: str) -> None:
        shop.sql("update public.ingest_dead_letter set status = %s where dead_letter_key = %s", status, key)

    def states() -> list[str]:
        found = dict(shop.sql("select dead_letter_key::text, status from public.ingest_dead_letter"))
        return [found[key] for key in (first, second, third)]

    for key, status in ((first, "READY"), (second, "READY"), (third, "OPEN")):
        put(key, status)
    replay = "button:has-text('Replay th')"
    with at(browser, shop, role="MANAGER") as page:
        page.goto("/console/replay")
        put(second, "CLOSED")  # somebody else, meanwhile
        put(third, "READY")
        page.fill("#replay-reason", "mended")
        hand(page, replay)
        page.get_by_role("alert").get_by_text(
            "Nothing was replayed: 1 of what you had previewed is not READY"
        ).wait_for()
        assert states() == ["READY", "CLOSED", "READY"]
        assert page.get_by_role("alert").get_by_role("link").get_attribute("href") == f"/console/dead-letters/{second}"
        put(third, "OPEN")
        page.goto("/console/replay")
        put(third, "READY")  # arrives after the preview
        page.fill("#replay-reason", "mended")
        hand(page, replay)
        said(page, "and of nothing else")
        assert states() == ["REPLAYING", "CLOSED", "READY"]
        assert page.locator("main input[name=key]").count() == 1, "its own preview, to look at"
        assert page.get_by_role("button", name="Replay this one").count() == 1
    with signed_in(shop, "MANAGER") as client:  # without a preview nothing is
        answered = client.post("/console/replay", data={"token": token(client), "reason": "all of it"})
        assert (answered.status_code, states()[2]) == (422, "READY")
    for key, status in ((first, "OPEN"), (second, "OPEN"), (third, "OPEN")):
        put(key, status)


def test_the_queue_is_decided_one_by_one_and_together(browser: Browser, shop: Shop, hand: Hand) -> None:
    first, *more = shop.queue[:1] if hand is by_mouse else shop.queue[1:4]
    with at(browser, shop, role="Ops Lead") as page:
        page.goto("/console/queue")
        hand(page, "a:has-text('Product: more than one fits')")
        page.get_by_text("package name: more than one product fits").first.wait_for()
        alike = page.get_by_role("region", name="Rows").get_by_role("row")
        assert alike.count() == 1 + (4 if not more else 3), "those of this reason, and no other"
        hand(page, f'a[href="/console/queue/{first}"]')
        page.get_by_text("Matches by slug").wait_for()
        page.fill("#choose-reason", "the same tour")
        hand(page, "button[name=entity]")
        said(page, "Decided")
        if more:
            page.goto("/console/queue")
            hand(page, "a:has-text('Product: more than one fits')")
            hand(page, f"input[type=checkbox][value='{more[0]}']")
            hand(page, "input[name=all]")
            page.select_option("#status", "CLOSED")
            page.fill("#decide-reason", "never sold")
            hand(page, "button:text-is('Decide')")
            said(page, "Decided")
    rows = shop.sql(
        "select status, resolved_by, payload #>> '{resolution,entity_type}' from public.unmapped_queue"
        " where queue_key = any(%s::uuid[]) order by source_pk",
        [first, *more],
    )
    assert rows == [("RESOLVED", "ayu", "PRODUCT"), *[("CLOSED", "ayu", None)] * len(more)]


def refused_write(shop: Shop) -> str:
    """A write that was accepted and could not be carried out; its id."""
    return shop.sql(
        "insert into phase2.write_intents (intent_id, idempotency_key, request_hash, booking_key, action, modules,"
        " mode, strict, actor, role, base_version, before, target, legacy_ids, legacy_target, legacy_expected,"
        " core_status, legacy_status, touched_at) values (gen_random_uuid(), gen_random_uuid()::text, 'x',"
        " gen_random_uuid(), 'patch', '{note}', 'DUAL', false, 'wayan', 'ADMIN', 1, '{}', %s::jsonb, '{}', '{}', '{}',"
        " 'REFUSED', 'REFUSED', now() - interval '1 minute') returning intent_id",
        json.dumps({"note": "Secret Guest"}),
    )[0][0]


def test_a_write_that_was_refused_later_is_shown_until_its_writer_was_told(
    browser: Browser, shop: Shop, hand: Hand
) -> None:
    key = refused_write(shop)
    with at(browser, shop, role="Ops Lead") as page:
        page.goto("/console/conflicts")
        assert "Secret Guest" not in page.locator("main").inner_text()
        page.get_by_text("(note) by wayan").wait_for()
        page.fill(f"[id='told-{key}']", "by phone")
        hand(page, "button:text-is('Was told')")
        said(page, "Noted")
        assert page.get_by_text("(note) by wayan").count() == 0
    told = "select actor, body ->> 'reason' from phase2.ledger where kind = 'refused-write' and body ->> 'intent' = %s"
    assert shop.sql(told, str(key)) == [("ayu", "by phone")]


def test_a_conflict_is_simulated_and_settled(browser: Browser, shop: Shop, hand: Hand) -> None:
    with at(browser, shop, role="Ops Lead") as page:
        page.goto("/console/conflicts")
        assert page.get_by_text(re.compile(r"\d+ min left")).count()
        hand(page, f'a[href="/console/conflicts/{shop.conflict}"]')
        page.get_by_role("region", name="What each way would change").wait_for()
        assert "note" in page.get_by_role("row", name=re.compile("keep bstadmin")).inner_text()
        assert page.locator("input[value=rule]").count() == 0, "its rule waits for a person"
        hand(page, "input[value=both]")
        page.fill("#resolve-reason", "both are right")
        hand(page, "button:text-is('Settle')")
        said(page, "Resolved")
    assert shop.entries("conflict")[-1].actor == "ayu"
    shop.sql("update phase2.conflicts set status = 'OPEN', after = null, ended_at = null where conflict_id = %s",
             shop.conflict)  # fmt: skip


def test_a_booking_is_explained(browser: Browser, shop: Shop, hand: Hand) -> None:
    with at(browser, shop, role="STAFF") as page:
        page.goto("/console/bookings")
        page.fill("#q", shop.booking)
        hand(page, "main button")
        page.get_by_role("heading", name=f"{shop.booking}").first.wait_for()
        page.get_by_text("booking_core").first.wait_for()
        page.fill("#q", "NO-SUCH-THING")
        hand(page, "main button")
        page.get_by_text("Not found").wait_for()


def test_a_flag_is_changed_for_a_part(browser: Browser, shop: Shop, hand: Hand) -> None:
    percentage = 5 if hand is by_mouse else 25
    with at(browser, shop, role="Backend Lead") as page:
        page.goto("/console/flags")
        form = "form[action$=WEB_EMIT_BOOKING_EVENT_ENABLED]"
        hand(page, "#WEB_EMIT_BOOKING_EVENT_ENABLED summary")
        page.check(f"{form} input[value=on]")
        page.fill(f"{form} input[name=percentage]", str(percentage))
        page.fill(f"{form} input[name=emails]", "Ayu@Mail.test")
        page.fill(f"{form} input[name=reason]", "the first step")
        hand(page, f"{form} button")
        said(page, "flag is changed")
        assert "ayu@mail.test" not in page.content()
    with postgres.connect(shop.ops, read_only=True) as conn:
        row = flags.read(conn)["WEB_EMIT_BOOKING_EVENT_ENABLED"]
        assert ledger.newest(conn, "flag", limit=1)[0].body["role"] == "Backend Lead"
    assert (row.enabled, row.rollout.percentage, row.rollout.emails) == (True, percentage, ("ayu@mail.test",))


def test_a_rung_is_asked_for_and_taken_back(
    browser: Browser, shop: Shop, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down is at once. Up is the command's word: here that it could not run, for the process has half a setting."""
    shop.sql("delete from phase2.flags where flag = 'OPS_READ_NEW_MODEL_ENABLED'")
    with postgres.connect(shop.ops, autocommit=True) as conn:
        five = flags.Rollout(percentage=5)
        flags.change(conn, "OPS_READ_NEW_MODEL_ENABLED", True, reason="a test", rollout=five)
    monkeypatch.setenv("OPS_DB_URL", "postgresql://nobody@localhost:1/none")
    with at(browser, shop, role="Ops Lead") as page:
        page.goto("/console/flags")
        page.get_by_role("heading", name="G reads: 5 %").wait_for()
        page.fill("#down-G", "complaint 4711")
        hand(page, "form[action$='G/down'] button")
        said(page, "One rung back")
        page.get_by_role("heading", name="G reads: testers").wait_for()
        page.fill("#up-G", "a quiet week")
        hand(page, "form[action$='G/up'] button")
        said(page, "Asked")
        for _ in range(100):
            page.goto("/console/flags")
            if page.get_by_text("could not run").count():
                break
            page.wait_for_timeout(200)
        by_mouse(page, "#rollout-G summary")
        page.get_by_text("BSTADMIN_DB_URL not set").wait_for()
    assert [(e.actor, e.body["role"], e.body["to"]) for e in shop.entries("rollout")[-1:]] == [
        ("ayu", "Ops Lead", "testers")
    ]


def test_what_a_stop_and_a_ladder_hold_is_refused_with_what_to_do(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form of a flag, and a rung: under a stop neither opens anything; nor the form what the ladder has not."""
    shop.sql("delete from phase2.flags where flag = 'OPS_READ_NEW_MODEL_ENABLED'")
    with signed_in(shop, "Tech Lead") as client:
        right = token(client)

        def post(path: str, **fields: str) -> tuple[int, str]:
            answered = client.post(f"/console/{path}", data={"token": right, "reason": "a test"} | fields)
            return answered.status_code, answered.text

        def reads(enabled: str, percentage: str) -> tuple[int, str]:
            return post("flags/OPS_READ_NEW_MODEL_ENABLED", enabled=enabled, percentage=percentage)

        assert post("stop")[0] == 303
        try:
            for status, text in (reads("on", "5"), post("rollout/G/up")):
                assert status == 409
                assert "stopped" in text
                assert "phase2 resume" in text
            assert reads("off", "5")[0] == 303
            assert "nothing can be switched on" in client.get("/console/flags").text
            [(_, seen)] = re.findall(r'(name="seen" value=")(\d+)', client.get("/console").text)
            with postgres.connect(shop.ops, autocommit=True) as conn:
                stop.ask(conn, "events are lost", subject="lost-events", batch="F", actor="guardrails")
            status, text = post("resume", seen=seen)  # it came after the page
            assert (status, "events are lost" in text) == (409, True)
        finally:
            assert post("resume")[0] == 303
        assert reads("on", "0")[0] == 303
        monkeypatch.setattr(rollout, "policy", lambda: POLICIES["staging"])
        status, text = reads("on", "50")
        assert (status, "phase2 rollout G --go" in text) == (409, True)
        assert reads("off", "0")[0] == 303


def test_signing_and_taking_it_back(browser: Browser, shop: Shop, hand: Hand) -> None:
    with at(browser, shop, role="Owner", name="pak made") as page:
        page.goto("/console/sign-offs/D")
        hand(page, "button:has-text('Sign D as Owner')")
        said(page, "Signed")
        page.fill("#revoke-reason", "not yet")
        hand(page, "button:has-text('back')")
        said(page, "Taken back")
    assert [(e.kind, e.actor, e.subject) for e in shop.entries("sign-off", "revocation")[-2:]] == [
        ("sign-off", "pak made", "Owner"),
        ("revocation", "pak made", "Owner"),
    ]


def test_what_no_other_test_presses_works_too(shop: Shop) -> None:
    """Freeze windows in Bali time, and items of the readiness."""

    def post(client: httpx.Client, path: str, **fields: str) -> None:
        answered = client.post(f"/console/{path}", data={"token": token(client)} | fields)
        assert answered.status_code == 303, answered.text

    with signed_in(shop, "PM", "putu") as client:
        post(client, "windows", **{"from": "2100-01-01T22:00", "to": "2100-01-02T06:00", "note": "a quiet night"})
        [window] = shop.entries("freeze-window")
        assert (window.actor, window.body["from"]) == ("putu", "2100-01-01T14:00:00+00:00")
        shown = client.get("/console/sign-offs/A").text
        assert re.search(r"2100-01-01 14:00 <small>UTC</small> <span class=\"bali\">22:00 Bali", shown)
        assert re.search(r"2100-01-01 22:00 <small>UTC</small> <span class=\"bali\">02 Jan 06:00 Bali", shown)
        post(client, f"windows/{window.no}/revoke", reason="another night")
        assert shop.entries("revocation")[-1].body["revokes"] == window.no
        backwards = {"token": token(client), "from": "2100-01-02T22:00", "to": "2100-01-02T06:00"}
        assert client.post("/console/windows", data=backwards).status_code == 409
    with signed_in(shop, "DevOps", "komang") as client:
        post(client, "readiness", item="secrets", evidence="ticket 12")
        assert (shop.entries("readiness")[-1].actor, shop.entries("readiness")[-1].subject) == ("komang", "secrets")


def test_showing_a_hidden_value_is_an_entry(browser: Browser, shop: Shop, hand: Hand) -> None:
    with at(browser, shop, role="MANAGER") as page:
        page.goto(f"/console/dead-letters/{shop.letters[0]}")
        assert "wayan@hidden.test" not in page.content()
        page.select_option("#path", "/customer/email")
        page.fill("#unmask-reason", "to call the guest")
        hand(page, "button:has-text('Show it')")
        assert page.locator("#value").inner_text() == "wayan@hidden.test"
    entry = shop.entries("audit")[-1]
    with signed_in(shop, "MANAGER") as client:  # one value, never a whole document below a false name
        of = re.search(r'name="of" value="([^"]+)"', client.get(f"/console/dead-letters/{shop.letters[0]}").text)
        assert of
        asked = {"kind": "ingest_event", "of": of[1], "reason": "all of it", "token": token(client)}
        for path, status in (("x", 404), ("/customer", 404), ("/customer/email", 200)):
            assert client.post("/console/unmask", data=asked | {"path": path}).status_code == status, path
    assert [shop.entries("audit")[-2], shop.entries("audit")[-1].body["field"]] == [entry, "/customer/email"]
    assert (entry.subject, entry.actor, entry.body["field"]) == ("PERSONAL_DATA_SHOWN", "ayu", "/customer/email")
    assert "wayan" not in json.dumps(entry.body)


def test_the_ledger_is_read_and_recomputed(browser: Browser, shop: Shop, hand: Hand) -> None:
    with at(browser, shop, role="DBA") as page:
        page.goto("/console/audit?kind=verdict")
        assert page.get_by_role("region", name="Entries").get_by_role("row").count() == 4
        hand(page, "button:has-text('Recompute')")
        said(page, "nothing was changed")


# -- every page: accessibility, weight, phones, screenshots -----------------------------------------------------------


def places(shop: Shop) -> dict[str, str]:
    return {
        "overview": "/console",
        "batch": "/console/batches/C",
        "daily": "/console/daily",
        "exit-criteria": "/console/exit-criteria",
        "guardrails": "/console/guardrails",
        "ingestion": "/console/ingestion",
        "dead-letters": "/console/dead-letters",
        "dead-letter": f"/console/dead-letters/{shop.letters[-1]}",
        "replay": "/console/replay",
        "queue": "/console/queue",
        "queue-row": f"/console/queue/{shop.queue[-1]}",
        "conflicts": "/console/conflicts",
        "conflict": f"/console/conflicts/{shop.conflict}",
        "bookings": f"/console/bookings?q={shop.booking}",
        "flags": "/console/flags",
        "sign-offs": "/console/sign-offs/A",
        "audit": "/console/audit",
        "nowhere": "/console/no-such-page",
    }


def every(page: Page, shop: Shop) -> Iterator[tuple[str, str]]:
    """Each page in turn, the last one without a session."""
    for name, path in [*places(shop).items(), ("sign-in", "/console/sign-in")]:
        if name == "sign-in":
            page.context.clear_cookies()
        page.goto(path)
        assert page.get_by_text("Sign out").count() == (name != "sign-in")
        yield name, path


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")], ids=["desk", "phone"])
def test_every_page_is_accessible_light_and_fits(browser: Browser, shop: Shop, width: int, scheme: str) -> None:
    """All opened, axe finds nothing serious; 200 KB at most with all that it loads, nothing to scroll sideways."""
    axe = (ROOT / "tests" / "vendor" / "axe.min.js").read_text(encoding="utf-8")
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    weighed: dict[str, int] = {}
    found: list[Any] = []
    with at(browser, shop, **options) as page:
        page.on("response", lambda r: weighed.__setitem__(r.url, len(r.body())) if r.ok else None)
        for name, path in every(page, shop):
            weight = sum(size for url, size in weighed.items() if "/static/" in url)
            weight += len(page.content().encode())
            if weight > 200_000:
                found.append((name, "bytes", weight))
            page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
            if page.evaluate("document.documentElement.scrollWidth") > width:
                found.append((name, "wider than the window"))
            found += [(name, "not by keyboard", html) for html in page.evaluate(BY_MOUSE_ALONE)]
            if scheme == "dark" and name not in ("overview", "batch", "queue", "flags"):
                continue
            page.evaluate(axe)
            told = page.evaluate("rules => axe.run({runOnly: rules, resultTypes: ['violations']})", RULES[scheme])
            serious = [v for v in told["violations"] if v["impact"] in ("serious", "critical")]
            found += [(name, path, v["id"], v["nodes"][0]["html"][:200]) for v in serious]
    assert found == []


@pytest.mark.skipif(not WRITES, reason="make console-shots")
def test_pictures(browser: Browser, shop: Shop) -> None:
    """Not a test of anything: takes the pictures of docs/console.md."""
    SHOTS.mkdir(exist_ok=True)
    with at(browser, shop, viewport={"width": 1000, "height": 640}) as page:
        for name, _ in every(page, shop):
            if name != "nowhere":
                taken = Image.open(BytesIO(page.screenshot()))
                taken.convert("RGB").quantize(64).save(SHOTS / f"{name}.png", optimize=True)


def test_the_shipped_pages_of_the_release_gate_are_these(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """ui_pages.yml as it is shipped: what was approved passes, and a planted change is seen on every page."""
    monkeypatch.setenv("CONSOLE_PASSWORD", sessions.local_password(core_settings()))
    pages = ui_gate.read(ROOT / "ui_pages.yml")
    pages = pages.model_copy(update={"base": shop.url, "sizes": {"phone": pages.sizes["phone"]}})
    files = frame._files()
    style, kind = files["console.css"]

    def checked() -> ui_gate.Check:
        with postgres.connect(shop.ops, autocommit=True) as conn:
            return ui_gate.check(conn, pages)

    with ThreadPoolExecutor(1) as apart:  # the browser of the other tests has this thread
        assert {one.state for one in apart.submit(checked).result().compared} == {"NEW"}
        with postgres.connect(shop.ops, autocommit=True) as conn:
            ui_gate.approve(conn, "the first ones, looked at")
        assert apart.submit(checked).result().drifted == ()
        monkeypatch.setitem(files, "console.css", (style + b"h1 { color: #c00 }", kind))
        drifted = apart.submit(checked).result()
    assert {one.item: one.state for one in drifted.compared} == {f"{page.name}-phone": "DRIFT" for page in pages.pages}
    report = drifted.report.read_text()
    for one in drifted.compared:
        for picture in (one.baseline, one.candidate, one.difference):
            assert (drifted.folder / str(picture)).is_file()
            assert f'src="{picture}"' in report


# -- who may what -----------------------------------------------------------------------------------------------------


def _filled(path: str) -> str:
    """A path of the table with keys of nothing."""
    path = path.replace("{key:uuid}", NOBODY).replace("{entry:int}", "999999").replace("{code}", "Z")
    return path.replace("{flag}", "NO_FLAG").replace("{kind}", "json")


@pytest.mark.parametrize("role", access.ROLES)
def test_each_role_does_what_the_table_says_and_nothing_else(shop: Shop, role: str) -> None:
    with signed_in(shop, role) as client:
        right = token(client)
        for place in frame.PLACES:
            if place.action is None or place.path == "/console/sign-out":
                continue
            if place.action == "look" and place.method == "GET" and place.path != "/console/bookings":
                continue  # every role may: each page is shown to each of them below
            if place.method == "GET":
                answered = client.get(_filled(place.path))
            else:
                answered = client.post(_filled(place.path), data={"token": right})
            assert answered.status_code < 500, (role, place.path, answered.text)
            refused = answered.status_code == 403
            assert refused != access.may(role, place.action), (role, place.path, answered.status_code)


def test_the_table_of_the_manual_is_the_one_that_is_asked() -> None:
    """docs/console.md: a row an action, a column a role."""
    rows = {
        "look at all pages, download reports": "look",
        "show a hidden value": "unmask",
        "dead letters: move, preview, replay": "dead letters",
        "decide rows of the queue": "queue",
        "see what settling a conflict would change": "simulate",
        "settle a conflict": "resolve",
        "change a flag": "flag",
        "rollout: ask for the next rung, step back": "rollout",
        "stop the migration": "stop",
        "lift the hold": "resume",
        "sign a batch or an item, in the own role": "sign",
        "freeze windows": "freeze window",
        "recompute the ledger": "verify",
    }
    text = (ROOT / "docs" / "console.md").read_text("utf-8")
    table = text[text.index("| | ADMIN") :].split("\n\n")[0].splitlines()
    head, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    written = {rows[name]: {role for role, mark in zip(head[1:], marks, strict=True) if mark}
               for name, *marks in lines[1:]}  # fmt: skip
    assert written == {action: set(roles) for action, roles in access.ACTIONS.items()}


def test_nobody_does_anything_without_signing_in(shop: Shop) -> None:
    with httpx.Client(base_url=shop.url) as client:
        client.get("/console/sign-in")
        for place in frame.PLACES:
            if place.action is None:
                continue
            answered = client.request(
                place.method, _filled(place.path), data={"token": "x"} if place.method == "POST" else None
            )
            assert answered.status_code == (303 if place.method == "GET" else 401), place.path


def _place_of(path: str) -> frame.Place:
    for place in frame.PLACES:
        pattern = re.sub(r"\{\w+:uuid\}", "[0-9a-f-]{36}", re.sub(r"\{\w+:int\}", r"\\d+", place.path))
        if place.method == "POST" and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), path):
            return place
    raise AssertionError(path)


def test_what_a_role_may_not_do_is_not_shown_and_all_it_may_is(shop: Shop) -> None:
    refused_write(shop)
    with postgres.connect(shop.ops, autocommit=True) as conn:
        conn.execute(
            "update public.ingest_dead_letter set status = 'READY' where dead_letter_key = %s", (shop.letters[0],)
        )
        conn.execute(
            "update public.ingest_dead_letter set status = 'OPEN' where dead_letter_key = %s", (shop.letters[1],)
        )
        five = flags.Rollout(percentage=5)
        flags.change(conn, "OPS_READ_NEW_MODEL_ENABLED", True, reason="a rung to go down from", rollout=five)
        stop.ask(conn, "a test")
        for role in signoff.ROLES:
            signoff.sign(conn, _batch("A"), role, f"{role} person")
        conn.execute(
            "select phase2.log('freeze-window', null, null, null, 'owner', %s::jsonb)",
            (json.dumps({"from": "2100-01-01T00:00:00+00:00", "to": "2100-01-02T00:00:00+00:00", "role": "Owner"}),),
        )
    pages = [
        *places(shop).values(),
        f"/console/dead-letters/{shop.letters[0]}",
        f"/console/dead-letters/{shop.letters[1]}",
    ]
    try:
        for role in access.ROLES:
            with signed_in(shop, role) as client:
                answers = {path: client.get(path) for path in pages}
            expected = dict.fromkeys(pages, 200) | {"/console/no-such-page": 404}
            if not access.may(role, "dead letters"):
                expected["/console/replay"] = 403
            assert {path: answered.status_code for path, answered in answers.items()} == expected, role
            texts = [answered.text for answered in answers.values()]
            shown = {
                _place_of(path).path
                for text in texts
                for path in re.findall(r'<form method="post" action="([^"]+)"', text)
            }
            due = {p.path for p in frame.PLACES if p.method == "POST" and p.action and access.may(role, p.action)}
            if role not in ("Tech Lead", "Backend Lead", "DevOps", "Ops Lead"):
                due.discard("/console/readiness")  # no item is theirs
            assert shown - {"/console/queue/decide"} == due - {"/console/queue/decide"}, role
            words = " ".join(texts)
            assert ("Decide" in words) == access.may(role, "queue")
    finally:
        with postgres.connect(shop.ops, autocommit=True) as conn:
            stop.lift(conn, "the test is over")


def _batch(code: str) -> Any:
    from bridge.batches import batch

    return batch(code)


# -- hostile input ----------------------------------------------------------------------------------------------------


def test_nothing_that_people_wrote_runs_and_no_personal_data_is_listed(browser: Browser, shop: Shop) -> None:
    with signed_in(shop) as client:
        client.post("/console/flags/WEB_EMIT_BOOKING_EVENT_ENABLED", data={
            "token": token(client), "enabled": "off", "percentage": "1", "reason": EVIL, "actors": EVIL})  # fmt: skip
    hostile = ["/console/dead-letters?status=" + EVIL, "/console/bookings?q=" + EVIL, "/console/audit?actor=" + EVIL,
               "/console?said=" + EVIL]  # fmt: skip
    with at(browser, shop) as page:
        for path in [*places(shop).values(), *hostile, f"/console/dead-letters/{shop.letters[0]}/preview"]:
            page.goto(path)
            assert page.evaluate("window.hit") is None, path
            assert page.locator("img, main script, svg[onload]").count() == 0, path
            text = page.content()
            for secret in ("wayan@hidden.test", "+6281999888777", "Secret Guest", "Wayan <", "Wayan &lt;"):
                assert secret not in text, (path, secret)


def test_a_form_of_another_page_is_refused(shop: Shop) -> None:
    """No token, another session's, another site's: nothing is done."""
    before = len(shop.entries("stop"))
    with signed_in(shop) as client, signed_in(shop, name="mallory") as other:
        mine = token(client)
        for data, headers in (
            ({"reason": "x"}, {}),
            ({"reason": "x", "token": token(other)}, {}),
            ({"reason": "x", "token": mine}, {"origin": "https://evil.test"}),
            ({"reason": "x", "token": mine}, {"sec-fetch-site": "cross-site"}),
        ):
            assert client.post("/console/stop", data=data, headers=headers).status_code == 403
        assert client.post("/console/stop", json={"reason": "x", "token": mine}).status_code == 422
        assert client.get("/console/stop").status_code in (404, 405)
    assert len(shop.entries("stop")) == before


def test_a_session_cannot_be_made_or_given(shop: Shop) -> None:
    """Tampered, over, or of a role that there is not; and one that was given before sign-in is not the one after."""
    real = cookie()[sessions.cookie_name()]
    body, _, mark = real.partition(".")
    forged = cookie("ayu", "STAFF")[sessions.cookie_name()].partition(".")[0]
    over = sessions.sealed(replace(sessions.opened(core_settings(), "ayu", "ADMIN"), until=1.0), core_settings())
    ghost = cookie("ayu", "GHOST")[sessions.cookie_name()]
    for value in (f"{forged}.{mark}", f"{body}.{'0' * 64}", body, "", "a.b.c", over, ghost, "x" * 5000):
        with httpx.Client(base_url=shop.url, cookies={sessions.cookie_name(): value}) as client:
            assert client.get("/console").status_code == 303, value[:40]
    with httpx.Client(base_url=shop.url) as client:
        sent = {"cookie": f"{sessions.cookie_name()}={body}.".encode() + b"\xe9"}
        assert client.get("/console", headers=sent).status_code == 303
    with httpx.Client(base_url=shop.url) as client:
        shown = client.get("/console/sign-in")
        given = client.cookies[sessions.cookie_name()]
        sent = {"token": csrf(shown.text), "name": "ayu", "role": "ADMIN", "next": "//evil.test/",
                "password": sessions.local_password(core_settings())}  # fmt: skip
        answered = client.post("/console/sign-in", data=sent)
        assert (answered.status_code, answered.headers["location"]) == (303, "/console")
        assert client.cookies[sessions.cookie_name()] != given
        assert client.get("/console").status_code == 200
    with httpx.Client(base_url=shop.url, cookies={sessions.cookie_name(): given}) as client:
        assert client.get("/console").status_code == 303


SECOND = """
import sys
from tests import serving
with serving.service(sys.argv[1]) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def second_process(shop: Shop) -> Iterator[str]:
    """Another process of the API on the same database, as behind a load balancer; its URL."""
    command = [sys.executable, "-c", SECOND, shop.ops]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin
        assert child.stdout
        try:
            yield child.stdout.readline().strip()
        finally:
            child.stdin.close()


def test_a_sign_out_and_wrong_passwords_hold_in_every_process(shop: Shop) -> None:
    held = cookie("wayan", "STAFF")
    shop.sql("delete from phase2.console_tries")
    with second_process(shop) as url:
        assert httpx.get(f"{url}/console/flags", cookies=held).status_code == 200
        with httpx.Client(base_url=shop.url, cookies=held) as client:
            assert client.post("/console/sign-out", data={"token": token(client)}).status_code == 303
        assert httpx.get(f"{url}/console/flags", cookies=held).status_code == 303, "signed out, elsewhere"

        def tried(base: str, password: str) -> httpx.Response:
            with httpx.Client(base_url=base, timeout=30) as client:
                right = csrf(client.get("/console/sign-in").text)
                sent = {"token": right, "name": "guess", "role": "ADMIN", "password": password}
                return client.post("/console/sign-in", data=sent)

        right = sessions.local_password(core_settings())
        assert tried(url, right).status_code == 303  # counts as none
        with ThreadPoolExecutor(12) as many:
            answers = list(many.map(tried, [url, shop.url] * 6, ["guess"] * 12))
        # all at once, on both: no more are looked at than one after the other
        assert sorted(one.status_code for one in answers) == [401] * sessions.TRIES + [429] * (12 - sessions.TRIES)
        waits = tried(url, right)
        assert (waits.status_code, int(waits.headers["retry-after"]) > 800) == (429, True)
    kept = shop.sql("select who, try_id::text from phase2.console_tries")
    assert len(kept) == 2 * sessions.TRIES
    assert "guess" not in repr(kept)
    shop.sql("update phase2.console_tries set at = at - interval '15 minutes'")
    assert tried(shop.url, "guess").status_code == 401
    assert shop.sql("select count(*) from phase2.console_tries") == [(2,)], "what is past is cleaned"
    shop.sql("delete from phase2.console_tries")


@pytest.mark.parametrize("word", ["'; drop table public.booking_core; --", "' or '1'='1", "%", "\\", "x" * 300])
def test_sql_in_a_search_is_a_word(shop: Shop, word: str) -> None:
    held = shop.sql("select count(*) from public.booking_core")
    with signed_in(shop) as client:
        for path in ("/console/bookings", "/console/audit", "/console/queue", "/console/dead-letters"):
            for name in ("q", "kind", "actor", "type", "reason", "channel"):
                assert client.get(path, params={name: word}).status_code in (200, 404), (path, name)
        for path in ("/console/queue?cursor=x'", "/console/dead-letters?cursor=1", "/console/dead-letters?status=x"):
            assert client.get(path).status_code == 422
    assert shop.sql("select count(*) from public.booking_core") == held


def test_a_download_leads_nowhere_else(shop: Shop) -> None:
    """No path is taken from the address; one in the ledger itself, or a changed file, is not given out."""
    secret = settings().phase2_reports.parent / "secret.json"
    secret.write_text('{"secret": 1}')
    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    with postgres.connect(shop.ops, autocommit=True) as conn:
        numbers = [
            ledger.append(
                conn,
                "verdict",
                batch="F",
                body={"result": "FAIL", "evaluated_at": "2026-01-01T00:00:00+00:00", "files": files},
            ).no
            for files in ({"../secret.json": digest}, {str(secret): digest}, {"gone.json": digest})
        ]
        body = {"day": "2026-01-01", "digests": {"../secret.json": digest}}
        numbers.append(ledger.append(conn, "daily", body=body).no)
    with signed_in(shop) as client:
        for number in numbers:
            assert client.get(f"/console/reports/{number}/json").status_code == 409
        assert client.get("/console/batches/F").status_code == 200
        for path in ("1/../../etc/passwd", "1/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "99999999999999999999999/json", "1/exe"):
            assert client.get(f"/console/reports/{path}").status_code == 404
        for path in ("../session.py", "%2e%2e/session.py", "..%2fsession.py", "console.css/../../session.py"):
            assert client.get(f"/console/static/{path}").status_code == 404
        verdict = next(e for e in shop.entries("verdict") if e.batch == "C")
        name = next(n for n in verdict.body["files"] if n.endswith(".md"))
        path = settings().phase2_reports / name
        kept = path.read_bytes()
        assert client.get(f"/console/reports/{verdict.no}/md").content == kept
        path.write_bytes(kept + b"!")
        assert client.get(f"/console/reports/{verdict.no}/md").status_code == 409
        path.write_bytes(kept)


def test_each_answer_says_what_a_browser_may_do_with_it(shop: Shop) -> None:
    with signed_in(shop) as client:
        for path in ("/console", "/console/no-such-page", "/console/static/console.css", "/console/sign-in"):
            headers = client.get(path).headers
            assert headers["content-security-policy"].startswith("default-src 'self';"), path
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
        assert client.get("/console").headers["cache-control"] == "no-store"


# -- before there is anything, and people -----------------------------------------------------------------------------


def test_before_batch_a_each_page_says_what_to_do() -> None:
    with (
        serving.environment(),
        serving.empty(os.environ["TEST_PG_URL"]) as ops,
        serving.service(ops) as url,
        httpx.Client(base_url=url, cookies=cookie(), timeout=20) as client,
    ):
        for path in ("/console", "/console/batches/A", "/console/sign-offs/A", "/console/flags", "/console/audit"):
            assert client.get(path).status_code == 200, path
        assert "phase2 daily makes it now" in client.get("/console/daily").text
        assert "there is no log of events: batch A makes it" in client.get("/console/exit-criteria").text
        for path in ("/console/ingestion", "/console/dead-letters", "/console/queue"):
            answered = client.get(path)
            assert (answered.status_code, "make run BATCH=A" in answered.text) == (503, True), path
        with postgres.connect(os.environ["TEST_PG_URL"], autocommit=True) as admin:
            name = postgres.database_name(ops)
            admin.execute(postgres.statement("alter database {} allow_connections false", name))
            admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
        answered = client.get("/console/flags")
        assert (answered.status_code, "the database does not answer" in answered.text) == (503, True)
        assert "/health/db" in answered.text


def test_a_changed_account_ends_its_sessions_and_nobody_else_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another password, a role more or less, or gone: signed in no more; what is changed of others changes nothing."""
    one, other = sessions.hashed("a long password"), sessions.hashed("another one")

    def holds(cookie: str | None, **people: tuple[str, list[str]]) -> str | None:
        """The cookie, or ayu's new one, where these are the people; None when it counts no more."""
        kept = {name: {"password": password, "roles": roles} for name, (password, roles) in people.items()}
        monkeypatch.setenv("CONSOLE_USERS", json.dumps(kept))
        with serving.environment():
            known = core_settings()
            cookie = cookie or sessions.sealed(sessions.opened(known, "ayu", "Ops Lead"), known)
            return cookie if sessions.read(cookie, known) else None

    mine = holds(None, ayu=(one, ["Ops Lead", "MANAGER"]), wayan=(other, ["DBA"]))
    assert mine
    assert holds(mine, ayu=(one, ["Ops Lead", "MANAGER"]), wayan=(other, ["DBA"])) == mine, "restarted, nothing changed"
    assert holds(mine, ayu=(one, ["MANAGER", "Ops Lead"]), wayan=(one, ["PM"]), made=(other, ["PM"])) == mine
    assert holds(mine, ayu=(other, ["Ops Lead", "MANAGER"])) is None, "another password"
    assert holds(mine, ayu=(sessions.hashed("a long password"), ["Ops Lead", "MANAGER"])) is None, "set anew"
    assert holds(mine, ayu=(one, ["Ops Lead"])) is None, "a role less"
    assert holds(mine, ayu=(one, ["Ops Lead", "MANAGER", "ADMIN"])) is None, "a role more"
    assert holds(mine, wayan=(other, ["DBA"])) is None, "gone"


def test_people_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"ayu": {"password": sessions.hashed("a long password"), "roles": ["Ops Lead"]}}
    monkeypatch.setenv("CONSOLE_USERS", json.dumps(kept))
    with serving.environment():
        known = core_settings()
        assert sessions.knows(known, "ayu", "a long password", "Ops Lead")
        assert not sessions.knows(known, "ayu", "a long password", "Owner")
        assert not sessions.knows(known, "ayu", "another", "Ops Lead")
        assert not sessions.knows(known, "wayan", "a long password", "Ops Lead")
        assert sessions.read(sessions.sealed(sessions.opened(known, "wayan", "Ops Lead"), known), known) is None
        assert sessions.read(sessions.sealed(sessions.opened(known, "ayu", "Ops Lead"), known), known)
    with serving.environment():  # without people any name signs in here: not any more once there are
        monkeypatch.setenv("CONSOLE_USERS", "")
        core_settings.cache_clear()
        anybody = sessions.sealed(sessions.opened(core_settings(), "ayu", "Ops Lead"), core_settings())
        assert sessions.read(anybody, core_settings())
        monkeypatch.setenv("CONSOLE_USERS", json.dumps(kept))
        core_settings.cache_clear()
        assert sessions.read(anybody, core_settings()) is None
    monkeypatch.setenv("CONSOLE_USERS", '{"ayu": {"password": "secret", "roles": ["KING"]}}')
    with serving.environment(), pytest.raises(CouldNotRun, match="KING"):
        sessions.users(core_settings())
