"""`phase2 explain`: why a row of the bridge is as it is, from any word that names it.

    find(conn, word) -> [Match]             every meaning of a ref, id, key, slug or code
    explain(conn, match) -> dict            what the bridge holds, from which source rows, by which rule, and who lost

Which rule makes a field is data (`explain_rules.csv`: one row a column of the bridge). Nothing is decided anew here: of
a field that candidates compete for, those whose normalised value is the bridge's are its origin, and the others lost.
Everything is read in one snapshot, and personal data is masked as in reports.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from bridge import door, ledger
from bridge.errors import CouldNotRun
from bridge.reports.document import plain_json
from bridge.reports.mask import mask, mask_text
from bridge.settings import SQL

RULES = Path(__file__).parent / "explain_rules.csv"

SEARCHED = (
    "booking refs of every channel, source ids of bookings, items, payments, finances, products, variants, rates,"
    " packages and tours, payment refs, capture and order ids, keys of the bridge and of the queue, slugs, variant"
    " codes, names of products and packages"
)

# Mapping 4.3, the table of strengths.
PROOF = (
    "no proof of payment",
    "a status that says paid, or is_paid without a time",
    "bstadmin's is_paid with a time",
    "a payment, without a capture id or ref",
    "a payment with a ref",
    "a payment with a capture id",
)

# By what a package's candidate was found (mapping 3.2).
LEVELS = {0: "by a person", 1: "legacy id", 2: "slug", 3: "name"}

MAPPED = "mapped to it"  # what sql/explain/catalog_sources.sql says of a package that supplies a product or variant

_ADDRESS = re.compile(r"(balisnap|bstadmin):(\w+):(\d{1,9})")
_MOST = 20  # of the source values that one field is told with

# The model that writes a table, where it has another name; a table of two batches has one of each.
_MODELS = {
    ("channel_external_refs", "D"): "booking_external_refs",
    ("channel_external_refs", "C"): "catalog_external_refs",
}


@dataclass(frozen=True)
class Match:
    """One meaning of the word. `row` is the part that it names, of a booking or variant that is told as a whole."""

    kind: str  # booking, product, variant, package, source
    key: UUID | None
    address: str | None  # `balisnap:Booking:12`, or a key: names this match and no other
    said: str  # how the word was understood
    row: UUID | None = None

    @property
    def name(self) -> str:
        """What to ask for to get this one alone."""
        return self.address or str(self.key)


@dataclass(frozen=True)
class Rule:
    """What makes one column of the bridge: a row of `explain_rules.csv`."""

    table: str
    column: str
    balisnap: tuple[str, ...]
    bstadmin: tuple[str, ...]
    value: str  # the column of int_booking_candidates or of a booking's staging model that holds it, normalised
    paragraph: str
    decided_in: tuple[str, ...]
    rule: str


@lru_cache(maxsize=1)
def rules() -> dict[str, dict[str, Rule]]:
    """By table and column, in the order of the file."""
    found: dict[str, dict[str, Rule]] = {}
    with RULES.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            lists = {name: tuple(row.pop(name).split()) for name in ("balisnap", "bstadmin", "decided_in")}
            found.setdefault(row["table"], {})[row["column"]] = Rule(**row, **lists)
    return found


# --- what is meant -------------------------------------------------------------------------------------------------


def find(conn: psycopg.Connection, word: str) -> list[Match]:
    """Every meaning of `word`, each once. CouldNotRun when the bridge is not there, or when nothing is called that."""
    word = word.strip()
    _require_bridge(conn)
    address = _ADDRESS.fullmatch(word)
    _ask(conn, explain=address[3] if address else word, table=f"{address[1]}:{address[2]}" if address else "")
    found = [Match(row["kind"], row["key"], row["address"], row["said"], row["row_key"]) for row in _rows(conn, "find")]
    if _is_there(conn, "dbt_intermediate.int_booking_sources"):
        for row in _rows(conn, "unbridged"):
            found.append(Match("source", None, row["address"], f"{row['channel_code']} {row['external_booking_ref']}"))
    matches = _distinct(found)
    if not matches:
        raise CouldNotRun(
            f"nothing here is called {mask_text(word)!r}",
            where=f"{conn.info.host}:{conn.info.port}/{conn.info.dbname}",
            todo=f"Searched: {SEARCHED}. A booking that is in a source but not here: run batches C to E.",
        )
    return matches


def _distinct(found: Iterable[Match]) -> list[Match]:
    """A package is told with what it maps to, any other source row by what it became, each thing once."""
    all_found = list(found)
    packages = {match.address for match in all_found if match.kind == "source" and _is_package(match.address)}
    bridged = {match.address for match in all_found if match.kind != "source" and match.address}
    distinct: dict[tuple[str, str], Match] = {}
    for match in all_found:
        if match.kind == "source":
            if match.address in bridged - packages:
                continue
            if match.address in packages:
                match = Match("package", None, match.address, match.said)
        elif match.address in packages:
            continue
        distinct.setdefault((match.kind, str(match.key or match.address)), match)
    return list(distinct.values())


def _is_package(address: str | None) -> bool:
    return bool(address and address.startswith("bstadmin:tour_packages:"))


# --- what it is ----------------------------------------------------------------------------------------------------


def explain(conn: psycopg.Connection, match: Match) -> dict[str, Any]:
    """All that is known about one match, as a plain document; personal data masked."""
    _require_bridge(conn)
    told = {"booking": _booking, "product": _catalog, "variant": _catalog, "package": _package, "source": _source}
    document = {
        "asked": match.name,
        "kind": match.kind,
        "understood_as": match.said,
        "part": str(match.row) if match.row else None,
        **told[match.kind](conn, match),
    }
    return plain_json(document)


def _booking(conn: psycopg.Connection, match: Match) -> dict[str, Any]:
    _ask(conn, key=str(match.key))
    held = list(_rows(conn, "booking"))
    ids = {"BALISNAP_BOOKING_ID": [], "BSTADMIN_BOOKING_ID": []}
    for row in held:
        if row["said"].get("external_ref_kind") in ids and row["said"]["source_pk"].isdigit():
            ids[row["said"]["external_ref_kind"]].append(row["said"]["source_pk"])
    _ask(conn, key=str(match.key), balisnap=ids["BALISNAP_BOOKING_ID"], bstadmin=ids["BSTADMIN_BOOKING_ID"])
    sources = list(_rows(conn, "booking_sources"))
    notes: list[str] = []
    candidates: list[dict[str, Any]] = []
    if _is_there(conn, "dbt_intermediate.int_booking_candidates"):
        candidates = list(_rows(conn, "booking_candidates"))
    if not candidates:
        notes.append("dbt's working tables do not have it (rolled back, or not run since): nobody's rank is known")
    if not sources:
        notes.append("no landed row leads to it: a source has it no more, it came by an event, or the landing is empty")
    core = held[0]["said"]
    identity = f"{core['channel_code']}:{core['external_booking_ref']}"
    _tell_what_is_carried(sources, held, candidates)
    addresses = [_address(row) for row in sources] + [f"canonical:booking_identity:{identity}"]
    around = _around(conn, "DE", addresses, [str(row["key"]) for row in held] + [identity], held)
    around["events"] = _events(conn, core)
    ranked = _ranked(candidates)
    return {
        "title": f"Booking {core['channel_code']} {core['external_booking_ref']}",
        "key": str(match.key),
        "summary": [
            f"The bridge holds it in {_count(len(held), 'row')}, made of {_count(len(sources), 'landed row')}.",
            f"{core['customer_payment_status']}, {core['ops_fulfillment_status']}, on {core['tour_date']},"
            f" {core['total_price']:.2f} {core['currency_code']}.",
            *_who_won(ranked),
            *_in_short(around),
        ],
        "notes": notes,
        "candidates": ranked,
        "packages": [],
        "rows": [_told(row, sources, candidates) for row in held],
        "sources": [_shown(row, {str(held_row["key"]) for held_row in held}) for row in sources],
        **around,
    }


def _catalog(conn: psycopg.Connection, match: Match) -> dict[str, Any]:
    _ask(conn, key=str(match.key))
    held = list(_rows(conn, "catalog"))
    return _of_catalog(conn, match, held, [])


def _of_catalog(
    conn: psycopg.Connection, match: Match, held: list[dict[str, Any]], addresses: list[str]
) -> dict[str, Any]:
    keys = [str(row["key"]) for row in held if row["table_name"] in ("catalog_product", "catalog_variant")]
    package = match.address.rpartition(":")[2] if _is_package(match.address) and match.address else ""
    _ask(conn, explain=package, keys=keys)
    notes, sources, packages = [], [], []
    if _is_there(conn, "dbt_intermediate.int_catalog_rate_suppliers"):
        sources, packages = list(_rows(conn, "catalog_sources")), list(_rows(conn, "packages"))
    else:
        notes.append("dbt's working tables are not there (rolled back): its source rows and candidates are not known")
    made = {str(row["key"]) for row in held}
    told = sorted({_address(row) for row in sources} | set(addresses) | {_of_package(row) for row in packages})
    around = _around(conn, "C", told, list(made), held)
    around["events"] = []
    bookings = conn.execute(
        "select count(*) from public.booking_core as c where c.package_ref_key = any(%s::uuid[])", (keys,)
    ).fetchone()
    first = next((row["said"] for row in held if str(row["key"]) == str(match.key)), held[0]["said"] if held else {})
    name = match.address if package else first.get("slug") or first.get("code")
    return {
        "title": f"{match.kind.capitalize()} {name}",
        "key": str(match.key) if match.key else None,
        "summary": [
            f"The bridge holds it in {_count(len(held), 'row')}, made of"
            f" {_count(len({_address(row) for row in sources}), 'landed row')}."
            if held
            else "The bridge holds no row of it.",
            f"{_count(bookings[0] if bookings else 0, 'booking')} in all stand on it.",
            *_in_short(around),
        ],
        "notes": notes,
        "candidates": [],
        "packages": [_outcome(row, keys) for row in packages],
        "rows": [_told(row, sources, []) for row in held],
        "sources": _merged(_shown(row, made) for row in sources),
        **around,
    }


def _package(conn: psycopg.Connection, match: Match) -> dict[str, Any]:
    """A bstadmin package: where it maps to, and the rows there."""
    assert match.address is not None
    held: list[dict[str, Any]] = []
    package = match.address.rpartition(":")[2]
    target = None
    if _is_there(conn, "dbt_intermediate.int_catalog_packages"):
        _ask(conn, explain=package)
        target = next((row["variant_key"] or row["product_key"] for row in _rows(conn, "packages")), None)
    if target:
        _ask(conn, key=str(target))
        held = list(_rows(conn, "catalog"))
    document = _of_catalog(conn, match, held, [match.address])
    shown = {row["row"] for row in document["sources"]}
    if match.address not in shown:
        document["sources"] += _landed(conn, match.address)
    return document


def _source(conn: psycopg.Connection, match: Match) -> dict[str, Any]:
    """A landed row that made nothing in the bridge."""
    assert match.address is not None
    sources = _landed(conn, match.address)
    notes = [] if sources else ["it is not in the landed rows any more"]
    if match.address.split(":")[1] in ("Booking", "bookings") and _is_there(
        conn, "dbt_intermediate.int_booking_sources"
    ):
        system, table, id_ = match.address.split(":")
        _ask(conn, explain=id_, table=f"{system}:{table}")
        for row in _rows(conn, "unbridged"):
            why = {
                "has_long_ref": "its ref is longer than 128 characters",
                "lacks_travel_date": "its travel day is missing or outside 1900 to 2199",
                "lacks_created_at": "its creation time is missing or outside 1900 to 2199",
            }
            notes += [f"not bridged (mapping 1): {words}" for name, words in why.items() if row[name]]
    around = _around(conn, "CDE", [match.address], [match.address], [])
    return {
        "title": f"Source row {match.address}",
        "key": None,
        "summary": ["The bridge holds no row of its own for it.", *_in_short(around)],
        "notes": notes,
        "candidates": [],
        "packages": [],
        "rows": [],
        "sources": sources,
        **around,
        "events": [],
    }


# --- fields and their origins --------------------------------------------------------------------------------------


def _told(row: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], candidates: list[dict[str, Any]]) -> dict:
    """One row of the bridge, field by field."""
    table = row["table_name"]
    own = [source for source in sources if source["makes"] == row["key"]]
    # a package that maps to a product or variant fills what that does not say itself
    fills = table in ("catalog_product", "catalog_variant")
    related = own + [source for source in sources if fills and source["supplies"] == MAPPED]
    related = list({_address(source): source for source in reversed(related)}.values())[::-1]
    hidden = _masked(table, row["said"])
    fields = []
    for column, rule in rules()[table].items():
        value = row["said"][column]
        fields.append(
            {
                "column": column,
                "value": hidden[column],
                "rule": rule.rule,
                "paragraph": rule.paragraph,
                "decided_in": list(rule.decided_in),
                "from": _origins(rule, value, related or sources, candidates),
            }
        )
    return {
        "table": table,
        "key": str(row["key"]),
        "from": sorted({_address(source) for source in own}),
        "written": {name: row["said"].get(name) for name in ("created_at", "updated_at")},
        "fields": fields,
    }


def _origins(
    rule: Rule, value: Any, sources: Sequence[Mapping[str, Any]], candidates: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The source values that a field may come from; of competing ones which is in it, and why others are not."""
    ranks = {_address(candidate): candidate for candidate in candidates}
    agreeing = [c for c in candidates if rule.value and _agrees(c["said"].get(rule.value), value)]
    origins = []
    for source in sources:
        address = _address(source)
        columns = rule.balisnap if source["source_system"] == "balisnap" else rule.bstadmin
        own = [name.partition(".")[2] for name in columns if name.partition(".")[0] == source["source_table"]]
        candidate = ranks.get(address) if rule.value and columns else None
        shown = _masked(source["source_table"], source["said"])
        if candidate and not own:  # it has the value of rows that hang on it: of a departure, for instance
            own, shown = [rule.value], _masked(source["source_table"], candidate["said"])
        for column in own:
            if column not in shown:
                continue
            in_bridge, why = None, None
            if candidate and candidate["said"].get(rule.value) is None and shown[column] is not None:
                why = "normalises to nothing"
            elif candidate:
                in_bridge, why = candidate in agreeing, _why(rule, value, candidate, agreeing)
            origins.append(
                {"row": address, "column": column, "value": shown[column], "in_bridge": in_bridge, "why": why}
            )
    return origins[:_MOST]


def _agrees(said: Any, value: Any) -> bool:
    if isinstance(said, str) and isinstance(value, str):
        return said == value or (f"] {said}" in value and value.startswith("["))  # notes, joined
    return said == value or (said is None and value == 0)


def _why(rule: Rule, value: Any, candidate: Mapping[str, Any], agreeing: Sequence[Mapping[str, Any]]) -> str | None:
    """Why this candidate's value is not the bridge's (None: it is)."""
    said = candidate["said"].get(rule.value)
    if candidate in agreeing or (said is None and value is None):
        return None
    if said is None:
        return "says nothing"
    if rule.column == "main_name" and candidate["is_placeholder_name"]:
        return "a placeholder"
    if rule.column == "main_email" and candidate["is_placeholder_email"]:
        return "a placeholder"
    if rule.column == "main_email" and not candidate["is_email"]:
        return "not a valid address"
    if not agreeing:
        return "made to fit, or the bridge is newer (mapping 1, 4.13)"
    if rule.column in ("booking_created_at", "booking_date"):
        return "later"
    if rule.paragraph == "4.6" and rule.column != "pickup_location":
        return "older, or ranked lower"
    return f"rank {candidate['candidate_rank']}: the value of {_address(agreeing[0])} stands"


def _ranked(candidates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The candidates by rank, and why each that lost did (mapping 4.3)."""
    ranked = []
    for candidate in candidates:
        winner = candidates[0]
        if candidate is winner:
            why = "the best proof of payment" if len(candidates) > 1 else "the only candidate"
        elif candidate["strength"] < winner["strength"]:
            why = f"weaker proof than {_address(winner)}"
        elif candidate["updated_at"] != winner["updated_at"]:
            why = f"the same proof, and changed earlier than {_address(winner)}"
        elif candidate["source_system"] != winner["source_system"]:
            why = "the same proof and time: balisnap goes first"
        else:
            why = "the same proof and time: the higher id goes first"
        ranked.append(
            {
                "row": _address(candidate),
                "rank": candidate["candidate_rank"],
                "won": candidate is winner,
                "strength": candidate["strength"],
                "proof": PROOF[candidate["strength"]],
                "updated_at": candidate["updated_at"],
                "carries_items": candidate["carries_items"],
                "why": why,
            }
        )
    return ranked


def _tell_what_is_carried(
    sources: list[dict[str, Any]], held: Sequence[Mapping[str, Any]], candidates: Sequence[Mapping[str, Any]]
) -> None:
    """Put into each source row what became of it."""
    keys = {row["key"] for row in held}
    carriers = {candidate["source_pk"] for candidate in candidates if candidate["carries_items"]}
    for source in sources:
        source["supplies"] = None
        if source["makes"] is None or source["makes"] in keys:
            continue
        if source["source_table"] == "BookingItem":
            source["supplies"] = (
                "not carried: cancelled, and another item is not (mapping 4.9)"
                if source["booking_pk"] in carriers
                else "not carried: another candidate's items are (mapping 4.9)"
            )
        else:
            source["supplies"] = "not in the bridge: see the queue"


def _outcome(row: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A package and its candidates: one product, several, or none (mapping 3.2 to 3.4)."""
    candidates = []
    for candidate in row["candidates"] or []:
        won: bool | None = candidate.get("product_key") == str(row["product_key"])
        if won:
            why = None
        elif row["outcome"] == "MULTI_MATCH":
            won, why = None, "more than one product fits: a person decides"
        elif row["resolution_status"] == "OBEYED":
            why = "a person decided otherwise"
        else:
            why = f"level {candidate.get('level')}: a stronger level decided"
        candidates.append({**candidate, "by": LEVELS.get(candidate.get("level"), "?"), "won": won, "why": why})
    return {
        "row": _of_package(row),
        "outcome": row["outcome"],
        "evidence": row["natural_status"],
        "level": row["match_level"],
        "product_key": row["product_key"],
        "variant_key": row["variant_key"],
        "variant_by": row["variant_rule"],
        "resolution": row["resolution_status"],
        "maps_here": str(row["product_key"]) in keys or str(row["variant_key"]) in keys,
        "candidates": candidates,
    }


# --- what is around it ---------------------------------------------------------------------------------------------

_QUEUE = """
select
    q.queue_key, q.queue_type, q.reason_code, q.reason_detail, q.status, q.resolved_by, q.resolved_at, q.created_at,
    q.source_system || ':' || q.source_table || ':' || q.source_pk as row, q.payload
from public.unmapped_queue as q
where
    q.source_pk = any(%(keys)s) -- by its index
    and q.source_system || ':' || q.source_table || ':' || q.source_pk = any(%(addresses)s)
order by q.created_at, q.queue_key
"""

_EXCEPTIONS = """
select e.batch, e.gate_id, e.entity, e.key, e.status, e.evaluated_at, e.detail
from phase2.exceptions as e
where
    e.key = any(%(keys)s)
    or split_part(e.key, ':', 1) = any(%(keys)s) -- the key, and more words behind it
    or regexp_replace(e.key, ':[^:]*$', '') = any(%(keys)s) -- an address and a reason
order by e.evaluated_at desc, e.gate_id
limit 100
"""

# The last run that built the model, of those that wrote the row's table.
_RUNS = """
select distinct on (s.batch, n.node ->> 'name')
    s.batch, n.node ->> 'name' as model, s.run_id, s.started_at, n.node ->> 'status' as status,
    (n.node ->> 'rows')::bigint as rows, n.node ->> 'sha256' as sha256, s.checksum as project_sha256
from phase2.step_log as s
cross join lateral jsonb_array_elements(coalesce(s.detail -> 'nodes', '[]')) as n (node)
where s.batch = any(%(batches)s) and s.kind = 'dbt' and n.node ->> 'name' = any(%(models)s)
order by s.batch, n.node ->> 'name', s.step_log_id desc
"""

# By the log's unique key, which begins with the source: one look for each source that there is.
_EVENTS = """
with recursive sources as (
    select min(e.source_enum) as source_enum from public.ingest_event_log as e
    union all
    select (select min(e.source_enum) from public.ingest_event_log as e where e.source_enum > s.source_enum)
    from sources as s
    where s.source_enum is not null
)

select e.event_key, e.event_type, e.source_enum, e.event_time, e.process_status, e.attempt_count, e.processed_at
from public.ingest_event_log as e
where
    e.source_enum = any(array(select s.source_enum from sources as s))
    and e.channel_code = %(channel_code)s and e.external_booking_ref = %(external_booking_ref)s
order by e.event_time_normalized, e.event_key
"""


def _around(
    conn: psycopg.Connection,
    batches: str,
    addresses: list[str],
    keys: list[str],
    held: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Queue rows, gates that list it, verdicts that covered it, runs that wrote its tables."""
    names = addresses + keys + [address.replace(":", ".", 1) for address in addresses]
    tables = {row["table_name"] for row in held}
    models = tables | {_MODELS.get((table, batch), table) for table in tables for batch in batches}
    cursor = conn.cursor(row_factory=dict_row)
    verdicts = [ledger.latest(conn, "verdict", batch=batch) for batch in batches]
    queued = {"addresses": addresses, "keys": [address.split(":", 2)[2] for address in addresses]}
    return {
        "queue": [
            {**mask(row), "reason_detail": mask_text(row["reason_detail"] or "")}
            for row in cursor.execute(_QUEUE, queued).fetchall()
        ],
        "exceptions": [
            {**row, "key": mask_text(row["key"]), "detail": mask(row["detail"])}
            for row in cursor.execute(_EXCEPTIONS, {"keys": names}).fetchall()
        ],
        "verdicts": [
            {
                "batch": entry.batch,
                "result": entry.body["result"],
                "at": entry.body["evaluated_at"],
                "entry": entry.no,
                "stale": list(door.stale(conn, entry.batch or "")),
                "report": next((name for name in entry.body.get("files", {}) if name.endswith(".html")), None),
            }
            for entry in verdicts
            if entry
        ],
        "runs": cursor.execute(_RUNS, {"batches": list(batches), "models": sorted(models)}).fetchall(),
    }


def _events(conn: psycopg.Connection, core: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What ingestion has received of the booking; the payload stays where it is."""
    return conn.cursor(row_factory=dict_row).execute(_EVENTS, core).fetchall()


def _in_short(around: Mapping[str, Any]) -> list[str]:
    opened = [row for row in around["queue"] if row["status"] in ("OPEN", "IN_REVIEW")]
    gates = sorted({row["gate_id"] for row in around["exceptions"]})
    verdicts = ", ".join(f"{v['batch']} {v['result']}{' (stale)' if v['stale'] else ''}" for v in around["verdicts"])
    return [
        f"{_count(len(around['queue']), 'row')} of the queue, {len(opened)} open."
        if around["queue"]
        else "No row of the queue is about it.",
        f"Listed by {', '.join(gates)}." if gates else "No gate lists it.",
        f"Latest verdicts that cover it: {verdicts}." if verdicts else "No verdict covers it yet.",
        f"{_count(len(around['events']), 'event')} since." if around.get("events") else "No event has come for it.",
    ]


def _who_won(ranked: Sequence[Mapping[str, Any]]) -> list[str]:
    if not ranked:
        return []
    first = ranked[0]
    others = "" if len(ranked) == 1 else f", before {len(ranked) - 1} other{'s' if len(ranked) > 2 else ''}"
    return [f"{first['row']} supplies the core ({first['proof']}){others}."]


# --- reading -------------------------------------------------------------------------------------------------------


def _landed(conn: psycopg.Connection, address: str) -> list[dict[str, Any]]:
    system, table, id_ = address.split(":")
    if not id_.isdigit():
        return []
    _ask(conn, explain=id_, table=f"{system}:{table}")
    row = {"source_system": system, "source_table": table, "source_pk": id_, "makes": None, "supplies": None}
    return [_shown({**row, **found}, set()) for found in _rows(conn, "source")]


def _shown(row: Mapping[str, Any], made: Collection[str]) -> dict[str, Any]:
    return {
        "row": _address(row),
        "makes": str(row["makes"]) if str(row["makes"]) in made else None,
        "note": row["supplies"],
        "columns": _masked(row["source_table"], row["said"]),
    }


def _merged(shown: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each source row once, with all that it is for."""
    merged: dict[str, dict[str, Any]] = {}
    for row in shown:
        first = merged.setdefault(row["row"], row)
        if first is not row:
            first["columns"] = row["columns"] | first["columns"]
            first["makes"] = first["makes"] or row["makes"]
            if row["note"] and row["note"] not in (first["note"] or ""):
                first["note"] = "; ".join(filter(None, (first["note"], row["note"])))
    return list(merged.values())


def _masked(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A name in the catalog is a product's; anywhere else it may be a person's."""
    if table.startswith("catalog_"):
        return {name: mask_text(value) if isinstance(value, str) else value for name, value in row.items()}
    return mask(row)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _address(row: Mapping[str, Any]) -> str:
    return f"{row['source_system']}:{row['source_table']}:{row['source_pk']}"


def _of_package(row: Mapping[str, Any]) -> str:
    return f"bstadmin:tour_packages:{row['package_id']}"


def _require_bridge(conn: psycopg.Connection) -> None:
    for relation in ("public.booking_core", "dbt_staging.stg_balisnap__bookings"):
        if not _is_there(conn, relation):
            raise CouldNotRun(
                "there is no bridge to explain", where=relation, todo="Run batch A first: make run BATCH=A"
            )


def _is_there(conn: psycopg.Connection, relation: str) -> bool:
    return conn.execute("select to_regclass(%s) is not null", (relation,)).fetchone() == (True,)


def _ask(
    conn: psycopg.Connection,
    *,
    explain: str = "",
    table: str = "",
    key: str = "",
    keys: Collection[str] = (),
    balisnap: Collection[str] = (),
    bstadmin: Collection[str] = (),
) -> None:
    """What the files of sql/explain read: settings of the session, lists as arrays."""
    lists = {"_keys": keys, "_balisnap": balisnap, "_bstadmin": bstadmin}
    asked = {"": explain, "_table": table, "_key": key, **{name: f"{{{','.join(of)}}}" for name, of in lists.items()}}
    for name, value in asked.items():
        conn.execute("select set_config('phase2.explain' || %s::text, %s::text, false)", (name, value))


def _rows(conn: psycopg.Connection, file: str) -> list[dict[str, Any]]:
    query = (SQL / "explain" / f"{file}.sql").read_text(encoding="utf-8")
    for name in ("booking_sources", "booking_candidates"):  # of all bookings, when the last run followed changes
        if _is_there(conn, f"dbt_intermediate.whole_{name}"):
            query = query.replace(f"dbt_intermediate.int_{name}", f"dbt_intermediate.whole_{name}")
    return conn.cursor(row_factory=dict_row).execute(query.encode()).fetchall()
