"""The rulebook (dbt_project/functions) against real servers: tables of cases worked out from the mapping, each rule
stated once more in Python, and what makes the functions fast (inlining) and safe (no session or locale matters).

Each database is given a locale of its own, and each table of cases is run in a plain session and in a hostile one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from bridge import postgres
from bridge.settings import DBT_PROJECT, ROOT, SQL

FUNCTIONS = {
    node["name"]: node
    for node in yaml.safe_load((DBT_PROJECT / "functions" / "_functions.yml").read_text())["functions"]
}

# Locale of a database by its name here. Turkish lower-cases I to a dotless i, and ICU sorts as people do: hostile.
DATABASES = {
    "17-c": ("TEST_PG_URL", "locale_provider libc locale 'C'"),
    "17-builtin": ("TEST_PG_URL", "locale_provider builtin locale 'C' builtin_locale 'C.UTF-8'"),
    "15-turkish": ("TEST_PG15_URL", "locale_provider icu icu_locale 'tr-TR' locale 'C.UTF-8'"),
}
SESSIONS = {
    "plain": "",
    "hostile": (
        "-c timezone=Pacific/Kiritimati -c datestyle=SQL,DMY -c intervalstyle=sql_standard -c search_path= "
        "-c standard_conforming_strings=off -c escape_string_warning=off -c extra_float_digits=0 "
        "-c bytea_output=escape -c transform_null_equals=on"
    ),
}


# -- servers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rulebook as a dbt project of its own: functions, seeds, macros, and no model that they could lean on."""
    folder = tmp_path_factory.mktemp("rulebook")
    for part in ("functions", "seeds", "macros", "dbt_project.yml"):
        (folder / part).symlink_to(DBT_PROJECT / part)
    (folder / "models").mkdir()
    (folder / "models" / "_sources.yml").symlink_to(DBT_PROJECT / "models" / "_sources.yml")
    return folder


def install(project: Path, url: str) -> None:
    """Our own state, then the functions and the seed that they read, in the database at `url`."""
    with postgres.connect(url, autocommit=True) as conn:
        conn.execute((SQL / "state.sql").read_bytes())
    command = [
        str(Path(sys.executable).with_name("dbt")),
        *("build", "--select", "+resource_type:function", "placeholder_contacts"),
        *("--project-dir", str(project), "--profiles-dir", str(ROOT)),
        *("--target-path", str(project / "target"), "--log-path", str(project / "logs")),
    ]
    environment = os.environ | postgres.dbt_environment(url) | {"DO_NOT_TRACK": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.fixture(scope="module")
def installed(project: Path) -> Iterator[dict[str, str]]:
    """URLs of the databases that hold the rulebook, by locale; of the servers that are there."""
    urls: dict[str, str] = {}
    servers: list[tuple[str, str]] = []
    try:
        for locale, (variable, definition) in DATABASES.items():
            if variable not in os.environ:
                continue
            server, name = os.environ[variable], f"rulebook_{locale.replace('-', '_')}_{uuid.uuid4().hex[:8]}"
            create = "create database {} template template0 encoding 'UTF8' " + definition
            with psycopg.connect(server, autocommit=True) as admin:
                admin.execute(sql.SQL(create).format(sql.Identifier(name)))  # type: ignore[arg-type]
            servers.append((server, name))
            urls[locale] = postgres.with_database(server, name)
            install(project, urls[locale])
        yield urls
    finally:
        for server, name in servers:
            with psycopg.connect(server, autocommit=True) as admin:
                admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(scope="module", params=DATABASES)
def rulebook(request: pytest.FixtureRequest, installed: dict[str, str]) -> str:
    """URL of a database that holds the rulebook, in each of the locales."""
    if request.param not in installed:
        pytest.skip(f"{DATABASES[request.param][0]} is not set: no such server here")
    return installed[request.param]


@pytest.fixture(scope="module", params=SESSIONS)
def conn(request: pytest.FixtureRequest, rulebook: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(rulebook, options=SESSIONS[request.param], autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def plain(rulebook: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(rulebook, autocommit=True) as connection:
        yield connection


def call(conn: psycopg.Connection[Any], name: str, rows: Sequence[Any]) -> list[str | None]:
    """`rulebook.name` for each row of arguments (a tuple, or the one argument), in one query, as ISO text.

    A text[] argument is the same for all rows. Times with zone come back as UTC.
    """
    types = [argument["data_type"] for argument in FUNCTIONS[name].get("arguments", [])]
    tuples = [row if isinstance(row, tuple) else (row,) for row in rows]
    columns, values, arguments = [], [], []
    for i, kind in enumerate(types):
        if kind.endswith("[]"):
            arguments.append(sql.SQL("{}::text[]").format(sql.Literal(tuples[0][i])))
            continue
        columns.append(sql.Identifier(f"a{i}"))
        values.append([None if row[i] is None else str(row[i]) for row in tuples])
        arguments.append(sql.SQL("{}::{}").format(sql.Identifier(f"a{i}"), sql.SQL(kind)))  # type: ignore[arg-type]
    result = sql.SQL("rulebook.{}({})").format(sql.Identifier(name), sql.SQL(", ").join(arguments))
    if FUNCTIONS[name]["returns"]["data_type"] == "timestamptz":
        result = sql.SQL("({} at time zone 'UTC')").format(result)
    query = sql.SQL("select to_jsonb({}) #>> '{{}}' from unnest({}) with ordinality as x ({}, n) order by n").format(
        result,
        sql.SQL(", ").join([sql.SQL("%s::text[]")] * len(columns)),
        sql.SQL(", ").join(columns),
    )
    return [row[0] for row in conn.execute(query, values)]


def as_text(value: Any) -> str | None:
    """How `call` spells a Python value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


# -- tables of cases, from the text of the rules ----------------------------------------------------------------------

NAMES = ["guest", "customer", "unknown", "cancelled", "n/a", "na", "-", "test"]
EMAILS = [
    *("no-email@getyourguide.com", "cancelled@getyourguide.com", "no-email@unknown.com", "test@test.com"),
    *("@example.com", "-", "n/a", "na", "unknown"),
]
ALL_SPACE = "".join(map(chr, [*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F]))
ALL_SPACE += "\u205f\u3000"
LISTED = [
    "completed",
    "captured",
    "paid",
    "success",
    "succeeded",
    "authorized",
    "pending",
    "failed",
    "cancelled",
    "canceled",
    "denied",
    "declined",
]
LISTED += ["expired", "voided", "refunded", "reversed", "partially_refunded"]
INJECTION = "'; drop table booking_core; --"

CASES: dict[str, list[tuple[Any, Any]]] = {
    "norm_text": [
        (None, None),
        ("", None),
        (" \t\r\n\u00a0", None),
        ("\u200b\u2060\ufeff", None),
        ("\u200ba\u200b\u200bb\ufeff", "ab"),
        ("a", "a"),
        ("  a  b ", "a b"),
        ("a\u00a0\u2003b", "a b"),
        ("a\u200b b", "a b"),
        ("a \u200b b", "a b"),
        ("a\u200bb", "ab"),
        ("\ufeffMount Batur", "Mount Batur"),
        ("line\r\nbreak", "line break"),
        (ALL_SPACE + "x" + ALL_SPACE + "y" + ALL_SPACE, "x y"),
        ("\u180e", "\u180e"),  # MONGOLIAN VOWEL SEPARATOR was a space until Unicode 6.3
        ("\x1c\x1d\x1e\x1f", "\x1c\x1d\x1e\x1f"),  # Python calls them space, Unicode does not
        ("zw\u200cj\u200d", "zw\u200cj\u200d"),  # joiners have meaning in a text
        ("Ünïcode 👩‍👩‍👧 ", "Ünïcode 👩‍👩‍👧"),
        (INJECTION, INJECTION),
        ("back\\slash %_ $1 \\1", "back\\slash %_ $1 \\1"),
        ("x" * 100_000 + " ", "x" * 100_000),
    ],
    "norm_lines": [
        (None, None),
        ("", None),
        (" \n \r\n \r ", None),
        ("one", "one"),
        ("a\nb", "a\nb"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("  a \t x  \n  b  ", "a x\nb"),
        ("a\n\n\n\nb", "a\n\nb"),
        ("a\n\n\nb\n\n\nc", "a\n\nb\n\nc"),
        *((f"{space}a{space}{space}b{space}\nc", "a b\nc") for space in ALL_SPACE if space not in "\r\n"),
        ("\u200ba\u200b\u200bb\ufeff", "ab"),
        ("a\n \n\u00a0\n\u200b\nb", "a\n\nb"),
        ("\n\na\n\n", "a"),
        ("a\u2028b\u2029c\u0085d\x0be\x0cf", "a b c d e f"),
        ("a\r\u200b\nb", "a\n\nb"),  # two line ends: the text rule works inside a line
        ("a\r\n\r\nb", "a\n\nb"),
        ("- one\n- two", "- one\n- two"),
    ],
    "norm_ref": [
        (None, None),
        ("", None),
        ("\u200d\u200c \u200b", None),
        (" gyg-abc 12 ", "GYG-ABC 12"),
        ("gyg\u200d\u200c\u200babc", "GYGABC"),
        ("\u200dg\u200cy\ufeffg", "GYG"),
        ("a \u200d b", "A B"),
        ("cafe\u0301", "CAF\u00c9"),
        ("caf\u00e9", "CAF\u00c9"),
        ("e\u200d\u0301", "\u00c9"),
        ("\u0131\u0301", "\u00cd"),
        ("istanbul-i", "ISTANBUL-I"),  # not \u0130, also on a Turkish database
        ("ﬁ", "ﬁ"),  # NFC, not NFKC
        ("ж\u00a0ж", "Ж Ж"),
        ("BS-12", "BS-12"),
        (INJECTION, INJECTION.upper()),
    ],
    "norm_slug": [
        (None, None),
        ("", None),
        ("---", None),
        ("日本", None),
        ("Mount Batur Sunrise!", "mount-batur-sunrise"),
        ("  --a__b--  ", "a-b"),
        ("Café Ubud", "cafe-ubud"),
        ("Cafe\u0301 Ubud", "cafe-ubud"),
        ("ISLAND TITIK", "island-titik"),
        ("İstanbul", "istanbul"),
        ("ﬁne ½ ①②", "fine-1-2-12"),  # 1 FRACTION SLASH 2
        ("2\u212a", "2k"),  # KELVIN SIGN
        ("Ø straße", "stra-e"),  # neither decomposes
        ("a\u0488b", "ab"),  # an enclosing mark is a combining mark
        ("Nusa Penida: East & West (1 day)", "nusa-penida-east-west-1-day"),
    ],
    "match_name": [
        (None, None),
        ("", None),
        (" -!? ", None),
        ("Mount Batur — Sunrise Trek", "mountbatursunrisetrek"),
        ("Café", "cafe"),
        ("ISLAND", "island"),
        ("Остров БАЛИ", "островбали"),
        ("Ⅷ x²", "viiix2"),
        ("日本 ツアー 3", "日本ツアー3"),
        ("٣ days", "٣days"),  # ARABIC-INDIC DIGIT THREE is a decimal digit
        ("ก็", "ก"),  # a mark above
        ("ভ্রমণ কি", "ভরমণক"),  # spacing marks too
        ("½", "12"),  # 1 FRACTION SLASH 2
        ("፩", None),  # a number, no decimal digit
        ("👍🏽", None),
        ("𝐁𝐚𝐥𝐢 𞤀", "bali𞤢"),
    ],
    "is_currency": [
        (None, False),
        ("", False),
        ("usd", True),
        (" Idr\u00a0", True),
        ("Rp", False),
        ("US$", False),
        ("USDT", False),
        ("U SD", False),
        ("ÉUR", False),
        ("idr", True),
        ("USD\nX", False),
    ],
    "norm_currency": [
        (None, "USD"),
        ("", "USD"),
        ("eur", "EUR"),
        (" idr ", "IDR"),
        ("Rp", "USD"),
        ("EURO", "USD"),
        ("A1B", "USD"),
        ("xyz", "XYZ"),
    ],
    "is_money": [
        (None, True),
        ("0", True),
        ("-1.005", True),
        ("9999999999.99", True),
        ("9999999999.994", True),
        ("9999999999.995", False),
        ("-9999999999.995", False),
        ("1e300", False),
        ("NaN", False),
        ("Infinity", False),
        ("-Infinity", False),
    ],
    "norm_money": [
        (None, "0.00"),
        ("1", "1.00"),
        ("0.005", "0.01"),
        ("-0.005", "-0.01"),
        ("2.675", "2.68"),
        ("1.004999999999999999999", "1.00"),
        ("-12.345", "-12.35"),
        ("-0.001", "0.00"),
        ("9999999999.99", "9999999999.99"),
        ("9999999999.994", "9999999999.99"),
        ("9999999999.995", "0.00"),
        ("-1e20", "0.00"),
        ("NaN", "0.00"),
        ("Infinity", "0.00"),
        ("-Infinity", "0.00"),
    ],
    "norm_count": [(None, 0), (-1, 0), (0, 0), (7, 7), (-2147483648, 0), (2147483647, 2147483647)],
    "utc_instant": [
        (None, None),
        ("infinity", None),
        ("-infinity", None),
        ("2026-03-01 12:34:56.789", "2026-03-01T12:34:56.789"),
        ("1900-01-01 00:00:00", "1900-01-01T00:00:00"),
    ],
    "bali_date": [
        (None, None),
        ("infinity", None),
        ("-infinity", None),
        ("2026-03-01 15:59:59.999+00", "2026-03-01"),
        ("2026-03-01 16:00:00+00", "2026-03-02"),
        ("2026-12-31 23:00:00+00", "2027-01-01"),
        ("2026-03-01 00:00:00+08", "2026-03-01"),
        ("294276-12-31 23:59:59+00", "294276-12-30"),
        ("4713-01-01 00:00:00+00 BC", "4713-01-01 BC"),
    ],
    "travel_day": [
        (None, None),
        ("infinity", None),
        ("-infinity", None),
        ("2026-03-01 00:00:00", "2026-03-01"),
        ("2026-02-28 16:00:00", "2026-03-01"),  # midnight in Bali
        ("2026-02-28 12:00:00", "2026-03-01"),  # midnight at UTC+12
        ("2026-03-01 11:00:00", "2026-03-01"),  # midnight at UTC-11
        ("2026-02-28 11:59:59.999", "2026-02-28"),
        ("294276-12-31 23:59:59", "294276-12-30"),
    ],
    "is_bridgeable_date": [
        (None, False),
        ("1899-12-31", False),
        ("1900-01-01", True),
        ("2199-12-31", True),
        ("2200-01-01", False),
        ("infinity", False),
        ("-infinity", False),
        ("0044-03-15 BC", False),
    ],
    "is_email": [
        (None, False),
        ("", False),
        ("a@b.c", True),
        ("José@exämple.co.id", True),
        ("a@b", False),
        ("a@@b.c", False),
        ("a@b@c.d", False),
        ("a b@c.d", False),
        ("a@b.c ", False),
        ("a\u00a0b@c.d", False),
        ("a@b.\u3000c", False),
        ("@b.c", False),
        ("a@.c", False),
        ("a@b.", False),
        ("a@b..c", True),
        ("a@b.c\n", False),
        ("a@b.c\nx@y.z", False),
        *((f"a{space}b@c.d", False) for space in ALL_SPACE),
        *((f"a@b{space}b.d", False) for space in ALL_SPACE),
        *((f"a@b.c{space}d", False) for space in ALL_SPACE),
        ("-", False),
    ],
    "norm_place": [
        (None, None),
        ("", None),
        ("-", None),
        (" N/A ", None),
        ("NA", None),
        ("Unknown", None),
        ("\u200b-\u00a0", None),
        ("--", "--"),
        ("Nature Hotel", "Nature Hotel"),
        ("n/a.", "n/a."),
        ("  Hotel  Ubud ", "Hotel Ubud"),
        ("unknown street", "unknown street"),
    ],
    "norm_phone": [
        (None, None),
        ("", None),
        ("-", None),
        ("N/A", None),
        ("na", None),
        ("unknown", None),
        ("+62 812-3456-7890", "+6281234567890"),
        ("0812 3456 7890", "+6281234567890"),
        ("62812 3456 7890", "+6281234567890"),
        ("0062 812 3456 7890", "+6281234567890"),
        ("+62 (0)812 3456 7890", "+6281234567890"),
        ("62 0812 3456 7890", "+6281234567890"),
        ("0062 0812 3456 7890", "+6281234567890"),
        ("(+62) 812 345 678", "+62812345678"),
        ("++62+812345678", "+62812345678"),
        ("1+2345678", "12345678"),
        ("81++2+345678+", "812345678"),
        ("6212345678", "+6212345678"),  # 62 and eight
        ("621234567", "621234567"),  # 62 and seven: an eight- or nine-digit number of its own
        ("000812345678", "+0812345678"),  # one step, once
        ("+6200812345678", "+620812345678"),
        ("8123456789", "8123456789"),
        ("1234567", "1234567"),
        ("12 34 567", "12 34 567"),  # seven digits: the text as it was
        ("  tel:\u00a0123 ", "tel: 123"),
        ("+1234567", "+1234567"),
        ("+12345678", "+12345678"),
        ("+123456789012345", "+123456789012345"),
        ("+1234567890123456", "+1234567890123456"),
        ("+1 234 567 890 123 456", "+1 234 567 890 123 456"),  # sixteen digits
        ("+1 234 567 890 123 45", "+123456789012345"),
        ("0", "0"),
        ("00", "00"),
        ("+", "+"),
        ("٠٨١٢٣٤٥٦٧٨٩", "٠٨١٢٣٤٥٦٧٨٩"),  # digits, but not ASCII
        ("0812345678 ext 9", "+628123456789"),
    ],
    "norm_code": [
        (None, None),
        (" ", None),
        (" adult ", "ADULT"),
        ("id", "ID"),
        ("no show", "NO SHOW"),
        ("paid\u200b", "PAID"),
        ("credit_card", "CREDIT_CARD"),
    ],
    "parse_tour_time": [
        (None, None),
        ("", None),
        ("9:30", "09:30:00"),
        ("09.30", "09:30:00"),
        ("9:30:15", "09:30:15"),
        ("9.30.15", "09:30:15"),
        ("23:59:59", "23:59:59"),
        ("0:00", "00:00:00"),
        ("24:00", None),
        ("9:60", None),
        ("9:30:60", None),
        ("9:30:15:00", None),
        ("9:30:15:00 am", None),
        ("9:60 am", None),
        ("9:30:60 am", None),
        ("9:5", None),
        ("9:305", None),
        ("009:30", None),
        ("-9:30", None),
        ("9 am", "09:00:00"),
        ("9AM", "09:00:00"),
        ("9 p.m.", "21:00:00"),
        ("9 P.M", "21:00:00"),
        ("9:30 am", "09:30:00"),
        ("9.30PM", "21:30:00"),
        ("09:30:15 pm", "21:30:15"),
        ("12 AM", "00:00:00"),
        ("12:30 a.m.", "00:30:00"),
        ("12 pm", "12:00:00"),
        ("12:30PM", "12:30:00"),
        ("0:30 AM", "00:30:00"),
        ("13:00 PM", None),
        ("0 pm", "12:00:00"),
        (" 9\u00a0:30", None),
        ("\u200b 8:30\u00a0AM ", "08:30:00"),
        ("9", None),
        ("930", None),
        ("930 am", None),
        ("am", None),
        ("9 am am", None),
        ("9 am sharp", None),
        ("123 am", None),
        ("1 am", "01:00:00"),
        ("10 am", "10:00:00"),
        ("9:30 xm", None),
        ("9:30 - 10:00", None),
        ("at 9:30", None),
        ("morning", None),
        ("9:30 am\n", "09:30:00"),
        ("٩:٣٠", None),
        ("allballs", None),  # words that Postgres itself would take for a time
        ("now", None),
        ("9:30+08", None),
        ("9:30 UTC", None),
    ],
    "is_placeholder_name": [
        ((None, NAMES), True),
        (("", NAMES), True),
        ((" \u200b", NAMES), True),
        *(((name, NAMES), True) for name in NAMES),
        *(((f"\u00a0{name.upper()} ", NAMES), True) for name in NAMES),
        (("Guest 2", NAMES), False),
        (("Testa Rossa", NAMES), False),
        (("n a", NAMES), False),
    ],
    "is_placeholder_email": [
        ((None, EMAILS), True),
        (("", EMAILS), True),
        *(((email, EMAILS), True) for email in EMAILS),
        *(((f" {email.upper()}\u00a0", EMAILS), True) for email in EMAILS),
        (("anything@example.com", EMAILS), True),
        (("Any.Thing@EXAMPLE.com ", EMAILS), True),
        (("a@b@example.com", EMAILS), True),
        (("a@example.com.au", EMAILS), False),
        (("a@notexample.com", EMAILS), False),
        (("a@example.comx", EMAILS), False),
        (("real@getyourguide.com", EMAILS), False),
        (("unknown@gmail.com", EMAILS), False),
        (("a@-", EMAILS), False),
        (("no at sign", EMAILS), False),
    ],
    "key_namespace": [
        ("booking", "1396788e-dfe4-558e-977f-cbac85111c4c"),
        ("product", "1b2c8dda-1d99-57f5-bdc1-b9fb772d8186"),
        ("variant", "6b647a19-b987-5dd4-8c1e-94bceb859370"),
        ("payment", "2dfcb1f0-47c5-5823-9bc3-c281e0fd702f"),
        ("driver", None),
        (None, None),
    ],
    "made_up_ref": [
        (("balisnap", 12), "BS-12"),
        (("bstadmin", 9007199254740993), "OPS-9007199254740993"),
        (("other", 1), None),
        (("balisnap", None), None),
        ((None, 1), None),
    ],
    "booking_channel": [
        *((code, code) for code in ("DIRECT", "GYG", "VIATOR", "BOKUN", "TRIPDOTCOM", "MANUAL")),
        (" gyg ", "GYG"),
        ("direct", "DIRECT"),
        ("EXPEDIA", "MANUAL"),
        ("", "MANUAL"),
        (None, "MANUAL"),
    ],
    "status_word": [
        ((None, None), None),
        (("", " Paid"), "paid"),
        (("Partially-Refunded", "x"), "partially_refunded"),
        (("NO SHOW", None), "no_show"),
    ],
    "listed_payment_status": [(("settled", None), None), (("captured", None), "PAID"), ((None, None), None)],
    "payment_status": [
        *(((word, None), "PAID") for word in ("completed", "captured", "paid", "success", "succeeded")),
        *(((word, None), "PENDING_PAYMENT") for word in ("authorized", "pending")),
        *(
            ((word, None), "FAILED")
            for word in ("failed", "cancelled", "canceled", "denied", "declined", "expired", "voided")
        ),
        *(((word, None), "REFUNDED") for word in ("refunded", "reversed")),
        *(((word, None), "PARTIALLY_REFUNDED") for word in ("partially_refunded", "Partially-Refunded")),
        (("PARTIALLY REFUNDED", None), "PARTIALLY_REFUNDED"),
        (("COMPLETED", "failed"), "PAID"),
        (("strange", "paid"), "PENDING_PAYMENT"),  # only a null v2 gives way
        ((None, "Paid "), "PAID"),
        ((None, "chargeback"), "PENDING_PAYMENT"),
        ((None, None), "PENDING_PAYMENT"),
        (("", "refunded"), "REFUNDED"),
    ],
    "is_known_payment_status": [
        *(((word, None), True) for word in LISTED),
        *(((None, word.upper()), True) for word in LISTED),
        (("partially refunded", None), True),
        (("strange", "paid"), False),
        ((None, "chargeback"), False),
        ((None, None), False),
    ],
    "payment_strength": [
        ((True, True, True, False, None, False), 5),
        ((True, True, False, True, "2026-01-01 00:00+00", True), 5),
        ((True, False, True, True, "2026-01-01 00:00+00", True), 4),
        ((True, False, False, True, "2026-01-01 00:00+00", True), 3),
        ((True, None, None, None, None, None), 3),
        ((False, True, True, True, "2026-01-01 00:00+00", True), 2),  # a capture of an unpaid payment proves nothing
        ((None, None, None, True, None, None), 1),
        ((False, True, True, False, "2026-01-01 00:00+00", True), 1),
        ((False, False, False, False, "2026-01-01 00:00+00", False), 0),
        ((None, None, None, None, None, None), 0),
    ],
    "balisnap_says_paid": [
        (("PAID", "x"), True),
        (("CONFIRMED", None), True),
        ((None, "Completed"), True),
        ((None, "paid "), True),
        (("PENDING_PAYMENT", "paid"), False),
        (("REFUNDED", None), False),
        ((None, None), False),
    ],
    "balisnap_says_cancelled": [
        (("CANCELLED", None), True),
        ((None, "canceled"), False),
        (("REFUNDED", "paid"), True),
        (("EXPIRED", None), False),
        (("PAID", "cancelled"), False),
        ((None, None), False),
    ],
    "balisnap_says_expired": [
        (("EXPIRED", None), True),
        ((None, "expired"), True),
        (("PAID", "expired"), False),
        ((None, None), False),
    ],
    "balisnap_status_payment": [
        *(((word, None), "PAID") for word in ("PAID", "CONFIRMED", "COMPLETED", "paid")),
        (("DRAFT", "paid"), "DRAFT"),
        (("REFUNDED", None), "REFUNDED"),
        *(((word, None), "FAILED") for word in ("FAILED", "CANCELLED", "EXPIRED")),
        (("PENDING_PAYMENT", "paid"), "PENDING_PAYMENT"),
        ((None, "confirmed"), "PAID"),
        ((None, "pending"), "PENDING_PAYMENT"),
        ((None, "whatever"), "PENDING_PAYMENT"),
        ((None, None), "PENDING_PAYMENT"),
    ],
    "synthetic_unit_price": [
        ((Decimal("100.00"), 2, 1), Decimal("33.33")),
        ((Decimal("0.05"), 2, 0), Decimal("0.03")),  # half away from zero
        ((Decimal("5.00"), 2147483647, 2147483647), Decimal("0.00")),
        ((Decimal("5.00"), 0, 0), Decimal("0.00")),
    ],
    "settlement_status": [
        ((2, 0), "SETTLED"),
        ((2, 1), "PENDING"),
        ((0, 0), "PENDING"),
        ((None, None), "PENDING"),
        ((1, None), "PENDING"),
    ],
    # stored, finance items, unpaid, validated_at, tour date, as of, driver, pattern: each row beats what is below it
    "fulfilment_status": [
        (("CANCELLED", 1, 0, "2026-01-01 00:00+00", "2026-01-01", "2026-01-02", 1, 1), "CANCELLED"),
        (("NO_SHOW", 1, 0, "2026-01-01 00:00+00", "2026-01-01", "2026-01-02", 1, 1), "NO_SHOW"),
        (("UPDATED", 1, 0, "2026-01-01 00:00+00", "2026-01-01", "2026-01-02", 1, 1), "DONE"),
        (("UPDATED", 2, 1, "2026-01-01 00:00+00", "2026-01-01", "2026-01-02", 1, 1), "COMPLETED"),
        (("UPDATED", 0, 0, "2026-01-01 00:00+00", "2026-01-03", "2026-01-02", 1, 1), "COMPLETED"),
        (("UPDATED", 0, 0, None, "2026-01-01", "2026-01-02", 1, 1), "ATTENTION"),
        (("READY", 2, 2, None, "2026-01-02", "2026-01-02", 1, 1), "ATTENTION"),
        (("UPDATED", 0, 0, None, "2026-01-03", "2026-01-02", 1, 1), "UPDATED"),
        (("NEW", None, None, None, "2026-01-03", "2026-01-02", 1, 1), "READY"),
        (("READY", 0, 0, None, "2026-01-03", "2026-01-02", 1, None), "NEW"),
        (("READY", 0, 0, None, "2026-01-03", "2026-01-02", None, 1), "NEW"),
        (("DONE", 0, 0, None, "2026-01-03", "2026-01-02", None, None), "NEW"),
        ((None, None, None, None, None, None, None, None), "NEW"),
    ],
    # cancelled, tour date, as of, paid
    "fulfilment_status_direct": [
        ((True, "2026-01-01", "2026-01-02", True), "CANCELLED"),
        ((False, "2026-01-01", "2026-01-02", True), "COMPLETED"),
        ((False, "2026-01-01", "2026-01-02", False), "CANCELLED"),
        ((False, "2026-01-01", "2026-01-02", None), "CANCELLED"),
        ((None, "2026-01-02", "2026-01-02", True), "ATTENTION"),
        ((False, "2026-01-02", "2026-01-02", False), "ATTENTION"),
        ((False, "2026-01-03", "2026-01-02", True), "NEW"),
        ((True, "2026-01-03", "2026-01-02", True), "CANCELLED"),
    ],
}

# What the keys of mapping 2 are, spelt out: function -> (arguments, namespace, name)
KEYS: dict[str, list[tuple[tuple[str, ...], str, str]]] = {
    "row_key": [
        (("product", "balisnap", "TourProduct", "7"), "product", "balisnap:TourProduct:7"),
        (("variant", "balisnap", "TourVariant", "7"), "variant", "balisnap:TourVariant:7"),
        (("rate", "balisnap", "VariantRatePlan", "7"), "variant", "balisnap:VariantRatePlan:7"),
        (("payment", "balisnap", "Payment", "7"), "payment", "balisnap:Payment:7"),
        (("finance", "bstadmin", "booking_finances", "7"), "payment", "bstadmin:booking_finances:7"),
    ],
    "named_key": [
        (("booking", "balisnap:BookingItem:3"), "booking", "balisnap:BookingItem:3"),
        (("booking", "bstadmin:bookings:3:assignment:9"), "booking", "bstadmin:bookings:3:assignment:9"),
        (
            ("variant", "bstadmin:tour_packages:3:fallback:x:ADULT"),
            "variant",
            "bstadmin:tour_packages:3:fallback:x:ADULT",
        ),
    ],
    "booking_key": [(("GYG", "É \\ 1"), "booking", "canonical:booking_identity:GYG:É \\ 1")],
    "synthetic_item_key": [(("GYG", "A1"), "booking", "canonical:booking_identity:GYG:A1:synthetic")],
    "external_ref_key": [
        (("PRODUCT", "DIRECT", "BALISNAP_PRODUCT_ID", "1"), "product", "PRODUCT:DIRECT:BALISNAP_PRODUCT_ID:1"),
        (("VARIANT", "MANUAL", "BSTADMIN_PACKAGE_ID", "1"), "variant", "VARIANT:MANUAL:BSTADMIN_PACKAGE_ID:1"),
        (("BOOKING", "GYG", "BOOKING_REF", "A:B"), "booking", "BOOKING:GYG:BOOKING_REF:A:B"),
    ],
    "queue_key": [
        (
            ("BOOKING_REVIEW", "canonical", "booking_identity", "GYG:A1", "MULTI_MATCH"),
            "variant",
            "unmapped:BOOKING_REVIEW:canonical:booking_identity:GYG:A1:MULTI_MATCH",
        )
    ],
}
NAMESPACES = {str(entity): uuid.UUID(str(key)) for entity, key in CASES["key_namespace"] if key}


@pytest.mark.parametrize("name", CASES)
def test_each_function_gives_what_its_rule_says(conn: psycopg.Connection[Any], name: str) -> None:
    got = call(conn, name, [given_ for given_, _ in CASES[name]])
    wrong = [
        (given_, expected, answer)
        for (given_, expected), answer in zip(CASES[name], got, strict=True)
        if answer != as_text(expected)
    ]
    assert not wrong, "(given, expected, got): " + repr([str(w)[:300] for w in wrong])


@pytest.mark.parametrize("name", KEYS)
def test_keys_are_uuid5_of_the_names_in_the_mapping(conn: psycopg.Connection[Any], name: str) -> None:
    expected = [str(uuid.uuid5(NAMESPACES[entity], text)) for _, entity, text in KEYS[name]]
    assert call(conn, name, [arguments for arguments, _, _ in KEYS[name]]) == expected


@pytest.mark.parametrize("name", [*KEYS, "uuid5"])
def test_a_key_without_all_its_parts_is_null(plain: psycopg.Connection[Any], name: str) -> None:
    whole = KEYS[name][0][0] if name in KEYS else (str(NAMESPACES["booking"]), "x")
    rows = [tuple(None if i == hole else part for i, part in enumerate(whole)) for hole in range(len(whole))]
    assert call(plain, name, rows) == [None] * len(rows)


def test_keys_of_unknown_entities_are_null(plain: psycopg.Connection[Any]) -> None:
    assert call(plain, "row_key", [("driver", "a", "b", "c")]) == [None]
    assert call(plain, "named_key", [("rate", "x")]) == [None]
    assert call(plain, "external_ref_key", [("DRIVER", "a", "b", "c")]) == [None]


def test_every_function_is_in_a_table_of_cases() -> None:
    tested_apart = {"uuid5", "placeholders", "current_as_of"}
    assert set(CASES) | set(KEYS) | tested_apart == set(FUNCTIONS)


def test_tour_times_of_a_whole_day_in_every_spelling(plain: psycopg.Connection[Any]) -> None:
    spellings, expected = [], []
    for minute in range(24 * 60):
        hour, rest = divmod(minute, 60)
        half, hour12 = ("a" if hour < 12 else "p"), (hour % 12 or 12)
        forms = [f"{hour}:{rest:02}", f"{hour:02}.{rest:02}", f"{hour:02}:{rest:02}:00", f"{hour}.{rest:02}.00"]
        forms += [
            f"{hour12}:{rest:02} {half}m",
            f"{hour12:02}.{rest:02}{half.upper()}M",
            f"{hour12}:{rest:02}:00 {half}.m.",
        ]
        if rest == 0:
            forms += [f"{hour12} {half}m", f"{hour12:02}{half.upper()}.M."]
        spellings += forms
        expected += [f"{hour:02}:{rest:02}:00"] * len(forms)
    assert call(plain, "parse_tour_time", spellings) == expected


# -- the rules once more, in Python -----------------------------------------------------------------------------------

SPACE = {chr(code) for code in range(0x110000) if chr(code).isspace()} - set("\x1c\x1d\x1e\x1f")


def says_text(value: str, also_gone: str = "") -> str:
    kept = [" " if c in SPACE else c for c in value if c not in "\u200b\u2060\ufeff" + also_gone]
    return " ".join(part for part in "".join(kept).split(" ") if part)


def says_lines(value: str) -> str:
    lines = [says_text(line) for line in re.split("\r\n|\r|\n", value)]
    kept = [line for i, line in enumerate(lines) if line or (i > 0 and lines[i - 1])]
    return "\n".join(kept).strip("\n")


def upper(value: str) -> str:
    """One character to one, as Postgres does without ICU."""
    return "".join(next((u for u in (c.upper(), c.title()) if len(u) == 1), c) for c in value)


def lower(value: str) -> str:
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in value)


def says_ref(value: str) -> str:
    return unicodedata.normalize("NFC", upper(unicodedata.normalize("NFC", says_text(value, "\u200c\u200d"))))


def without_marks(value: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", value) if unicodedata.category(c)[0] != "M")


def says_slug(value: str) -> str:
    letters = [c if c in "abcdefghijklmnopqrstuvwxyz0123456789" else "-" for c in lower(without_marks(value))]
    return "-".join(part for part in "".join(letters).split("-") if part)


def says_match_name(value: str) -> str:
    kept = [
        c for c in lower(without_marks(value)) if unicodedata.category(c)[0] == "L" or unicodedata.category(c) == "Nd"
    ]
    return "".join(kept)


def says_phone(value: str) -> str:
    text = says_text(value)
    if text.lower() in ("-", "n/a", "na", "unknown"):
        return ""
    digits = ""
    for c in text:
        if c in "0123456789" or (c == "+" and not digits):
            digits += c
    if digits.startswith("00"):
        digits = "+" + digits[2:]
    elif digits.startswith("0"):
        digits = "+62" + digits[1:]
    elif digits.startswith("62") and len(digits) >= 10:
        digits = "+" + digits
    if digits.startswith("+620"):
        digits = "+62" + digits[4:]
    return digits if 8 <= len(digits.replace("+", "")) <= 15 else text


def says_money(value: Decimal) -> Decimal:
    if not value.is_finite():
        return Decimal("0.00")
    cents = value.quantize(Decimal("0.01"), ROUND_HALF_UP)
    return cents if abs(cents) < 10**10 else Decimal("0.00")


def known(character: str) -> bool:
    """Assigned in every Unicode version that a supported server or Python may have."""
    if unicodedata.unidata_version == "14.0.0":
        return unicodedata.category(character) != "Cn"
    return unicodedata.ucd_3_2_0.category(character) != "Cn"


TRICKY = (
    ALL_SPACE + "\u200b\u200c\u200d\u2060\ufeff\u180e\x1c\x01\x7f"
    "\u0301\u0308\u0345\u0488\u093e\u20dd\ufe0f"
    + "aAzZiIıİßẞﬁſςσΣKÅéÉäÄǅŉΐᾳ"
    + "0987٣①½²Ⅷ፩"
    + "-_/\\'\"%$.,@+:;()[]{}^|*?~`"
    "ж日ツ한ﷺ𝐁𞤀😀👍🏽"
)
WILD = st.text(
    st.one_of(
        st.sampled_from(TRICKY),
        st.characters(min_codepoint=1, max_codepoint=0x17F),
        st.characters(min_codepoint=1, exclude_categories=("Cs", "Cn")).filter(known),
    ),
    max_size=30,
)
DIALLED = st.text(st.sampled_from("0026689++ -()." + "\u00a0\u200bx٣"), max_size=22)
TEXTS = st.lists(WILD, min_size=20, max_size=120)
PROPERTY = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def differences(given_: Iterable[Any], expected: Iterable[Any], got: Iterable[Any]) -> list[tuple[Any, Any, Any]]:
    return [row for row in zip(given_, expected, got, strict=True) if row[1] != row[2]]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("norm_text", says_text),
        ("norm_lines", says_lines),
        ("norm_ref", says_ref),
        ("norm_slug", says_slug),
        ("match_name", says_match_name),
        ("norm_phone", says_phone),
        ("norm_code", lambda value: upper(says_text(value))),
    ],
)
def test_any_text_agrees_with_the_rule_in_python(plain: psycopg.Connection[Any], name: str, says: Any) -> None:
    @PROPERTY
    @given(st.lists(DIALLED | WILD, min_size=20, max_size=120) if name == "norm_phone" else TEXTS)
    def check(values: list[str]) -> None:
        assert differences(values, [says(v) or None for v in values], call(plain, name, values)) == []

    check()


@pytest.mark.parametrize("name", ["norm_text", "norm_code", "match_name", "norm_slug"])
def test_every_character_agrees_with_the_rule_in_python(plain: psycopg.Connection[Any], name: str) -> None:
    says = {
        "norm_text": says_text,
        "norm_code": lambda value: upper(says_text(value)),
        "match_name": says_match_name,
        "norm_slug": says_slug,
    }[name]
    values = [f"a{chr(c)}b" for c in range(1, 0x110000) if not 0xD800 <= c <= 0xDFFF and known(chr(c))]
    assert differences(values, [says(v) or None for v in values], call(plain, name, values))[:10] == []


def test_any_amount_agrees_with_the_rule_in_python(plain: psycopg.Connection[Any]) -> None:
    exact = st.decimals(-(10**11), 10**11, places=4) | st.decimals(-100, 100, places=3)
    edge = st.sampled_from([Decimal(w) for w in ("NaN", "Infinity", "-Infinity", "9999999999.995", "-9999999999.994")])

    @PROPERTY
    @given(st.lists(exact | edge, min_size=20, max_size=120))
    def check(values: list[Decimal]) -> None:
        got = [Decimal(answer or "NaN") for answer in call(plain, "norm_money", values)]
        assert differences(values, map(says_money, values), got) == []
        fits = [as_text(v.is_finite() and (says_money(v) != 0 or abs(v) < 1)) for v in values]
        assert differences(values, fits, call(plain, "is_money", values)) == []

    check()


def test_uuid5_is_python_s(plain: psycopg.Connection[Any]) -> None:
    @PROPERTY
    @given(st.lists(st.tuples(st.uuids(), WILD), min_size=20, max_size=120))
    def check(pairs: list[tuple[uuid.UUID, str]]) -> None:
        expected = [str(uuid.uuid5(namespace, name)) for namespace, name in pairs]
        assert differences(pairs, expected, call(plain, "uuid5", pairs)) == []

    check()


@pytest.mark.parametrize(
    "name",
    ["norm_text", "norm_lines", "norm_ref", "norm_slug", "match_name", "norm_code", "norm_currency", "norm_place"],
)
def test_what_is_normal_stays_as_it_is(plain: psycopg.Connection[Any], name: str) -> None:
    @PROPERTY
    @given(TEXTS)
    def check(values: list[str]) -> None:
        once = call(plain, name, values)
        assert differences(values, once, call(plain, name, once)) == []

    check()


# -- what the functions are to the server -----------------------------------------------------------------------------

# As models call them: over columns, and over each other.
HOT = [
    "rulebook.norm_text(t)",
    "rulebook.norm_lines(t)",
    "rulebook.norm_ref(t)",
    "rulebook.norm_slug(t)",
    "rulebook.match_name(rulebook.norm_text(t))",
    "rulebook.is_currency(t)",
    "rulebook.norm_currency(t)",
    "rulebook.is_money(n)",
    "rulebook.norm_money(n * 2)",
    "rulebook.norm_count(i)",
    "rulebook.bali_date(rulebook.utc_instant(ts))",
    "rulebook.travel_day(ts)",
    "rulebook.is_bridgeable_date(rulebook.travel_day(ts))",
    "rulebook.is_email(rulebook.norm_text(t))",
    "rulebook.norm_place(t)",
    "rulebook.norm_phone(t)",
    "rulebook.parse_tour_time(t)",
    "rulebook.is_placeholder_name(rulebook.norm_text(t), l)",
    "rulebook.is_placeholder_email(rulebook.norm_text(t), l)",
    "rulebook.row_key('payment', 'balisnap', 'Payment', i::text)",
    "rulebook.booking_key("
    "rulebook.booking_channel(t), coalesce(rulebook.norm_ref(t), rulebook.made_up_ref('balisnap', i)))",
    "rulebook.named_key('booking', 'balisnap:BookingItem:' || i::text)",
    "rulebook.external_ref_key('BOOKING', t, 'BOOKING_REF', rulebook.norm_ref(t))",
    "rulebook.queue_key("
    "'BOOKING_REVIEW', 'canonical', 'booking_identity', t || ':' || rulebook.norm_ref(t), 'NO_MATCH')",
    "rulebook.payment_status(t, t)",
    "rulebook.is_known_payment_status(t, t)",
    "rulebook.balisnap_status_payment(t, t)",
    "rulebook.payment_strength(b, b, b, b, ts at time zone 'UTC', rulebook.balisnap_says_paid(t, t))",
    "rulebook.fulfilment_status(t, i, i, ts at time zone 'UTC', ts::date, ts::date, i, i)",
    "rulebook.fulfilment_status_direct("
    "rulebook.balisnap_says_cancelled(t, t) or rulebook.balisnap_says_expired(t, t), ts::date, ts::date, b)",
]


@pytest.mark.parametrize("expression", HOT)
def test_hot_functions_are_inlined(plain: psycopg.Connection[Any], expression: str) -> None:
    """The plan shows what the function does, not that it is called."""
    plain.execute(
        "create temporary table if not exists x (t text, i integer, n numeric, ts timestamp, b boolean, l text[])"
    )
    query = sql.SQL("explain (verbose, costs off) select {} from pg_temp.x").format(
        sql.SQL(expression)  # type: ignore[arg-type]
    )
    plan = "\n".join(row[0] for row in plain.execute(query))
    assert "Output:" in plan
    assert "rulebook." not in plan


def test_functions_are_what_they_are_declared_to_be(plain: psycopg.Connection[Any]) -> None:
    rows = plain.execute(
        "select p.proname, p.provolatile, p.proparallel, p.proisstrict, l.lanname, pg_get_function_arguments(p.oid)"
        " from pg_catalog.pg_proc as p join pg_catalog.pg_language as l on l.oid = p.prolang"
        " where p.pronamespace = 'rulebook'::regnamespace and p.proname = any(%s)",
        [list(FUNCTIONS)],
    ).fetchall()
    assert sorted(row[0] for row in rows) == sorted(FUNCTIONS)  # all there, and none twice
    for name, volatility, parallel, strict, language, _ in rows:
        declared = {"deterministic": "i", "stable": "s"}[FUNCTIONS[name]["config"]["volatility"]]
        assert (name, volatility, parallel, strict, language) == (name, declared, "s", False, "sql")


def test_functions_work_in_a_clone_of_their_database(rulebook: str) -> None:
    """Bodies are text: one that named its database would fail in a rehearsal's clone."""
    server, name = os.environ[_server_of(rulebook)], f"rulebook_clone_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server, autocommit=True) as admin:
        origin = psycopg.conninfo.conninfo_to_dict(rulebook)["dbname"]
        admin.execute(
            "select pg_terminate_backend(pid) from pg_catalog.pg_stat_activity where datname = %s", [origin]
        )  # our own idle connections; a template must have none
        admin.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(str(origin)))
        )
        try:
            with psycopg.connect(postgres.with_database(server, name)) as clone:
                for function in ("norm_ref", "norm_place", "payment_status"):
                    rows = [given_ for given_, _ in CASES[function]]
                    assert call(clone, function, rows) == [as_text(expected) for _, expected in CASES[function]]
                assert clone.execute("select rulebook.placeholders('name'), rulebook.current_as_of()").fetchone()
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _server_of(url: str) -> str:
    port = psycopg.conninfo.conninfo_to_dict(url).get("port")
    same = (v for v in ("TEST_PG_URL", "TEST_PG15_URL") if v in os.environ)
    return next(v for v in same if psycopg.conninfo.conninfo_to_dict(os.environ[v]).get("port") == port)


def test_placeholders_are_the_list_of_the_mapping(rulebook: str) -> None:
    with psycopg.connect(rulebook) as conn:
        query = "select rulebook.placeholders('name'), rulebook.placeholders('email'), rulebook.placeholders('fax')"
        names, emails, none = conn.execute(query).fetchone() or ()
    assert (names, emails, none) == (sorted(NAMES), sorted(EMAILS), [])


def test_as_of_is_the_run_s_or_today_in_bali(rulebook: str) -> None:
    with psycopg.connect(rulebook, options=SESSIONS["hostile"]) as conn:
        asked = "select rulebook.current_as_of() = %s"
        today = conn.execute("select (now() at time zone 'UTC' + interval '8 hours')::date").fetchone()
        assert conn.execute(asked, today).fetchone() == (True,)
        conn.execute("insert into phase2.run_context (as_of) values (null)")
        assert conn.execute(asked, today).fetchone() == (True,)
        conn.execute("update phase2.run_context set as_of = date '2026-02-18'")
        assert conn.execute(asked, ["2026-02-18"]).fetchone() == (True,)
        conn.rollback()


# -- the generated classes --------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    unicodedata.unidata_version != "14.0.0", reason="the ranges are those of Python 3.11's Unicode 14.0"
)
def test_the_ranges_are_what_their_generator_writes() -> None:
    folder = DBT_PROJECT / "macros" / "rulebook"
    written = subprocess.run(
        [sys.executable, str(folder / "unicode_ranges.py")], capture_output=True, text=True, check=True
    ).stdout
    assert (folder / "unicode_ranges.sql").read_text() == written
