"""Batch E: payments, the customer's payment status, and finance (mapping 5), with the proof of 4.3."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.oracle import normalise as n
from tests.oracle.unmapped import Queue

Row = dict[str, Any]
Tables = dict[str, list[Row]]

PAYMENT_WORDS = {
    "completed": "PAID",
    "captured": "PAID",
    "paid": "PAID",
    "success": "PAID",
    "succeeded": "PAID",
    "authorized": "PENDING_PAYMENT",
    "pending": "PENDING_PAYMENT",
    "failed": "FAILED",
    "cancelled": "FAILED",
    "canceled": "FAILED",
    "denied": "FAILED",
    "declined": "FAILED",
    "expired": "FAILED",
    "voided": "FAILED",
    "refunded": "REFUNDED",
    "reversed": "REFUNDED",
    "partially_refunded": "PARTIALLY_REFUNDED",
}
CAPTURES = ("PAID", "PARTIALLY_REFUNDED")
BOOKING_WORDS = {
    "PAID": "PAID",
    "CONFIRMED": "PAID",
    "COMPLETED": "PAID",
    "DRAFT": "DRAFT",
    "REFUNDED": "REFUNDED",
    "FAILED": "FAILED",
    "CANCELLED": "FAILED",
    "EXPIRED": "FAILED",
}


@dataclass(frozen=True)
class Payment:
    """A balisnap payment whose ids and date fit, normalised (mapping 5.1)."""

    id: int
    booking_id: int
    key: uuid.UUID
    time: datetime
    amount: Decimal
    status: str
    status_known: bool
    cancelled: bool
    row: Row


def payment_status(row: Row) -> tuple[str, bool, str]:
    """Mapping 5.1: the normalised status, whether the word was known, and the word."""
    raw = n.text(row["payment_status_v2"]) or n.text(row["payment_status"]) or ""
    word = n.lower(raw).replace("-", "_").replace(" ", "_")
    return PAYMENT_WORDS.get(word, "PENDING_PAYMENT"), word in PAYMENT_WORDS, word


def fits(row: Row) -> bool:
    """Mapping 1: a payment with an id longer than its column or without a usable date is not bridged."""
    ids = (n.text(row[c]) or "" for c in ("payment_ref", "gateway_order_id", "gateway_capture_id"))
    return n.in_range(n.instant(row["payment_date"])) and all(len(value) <= 128 for value in ids)


def read_payments(balisnap: Tables) -> list[Payment]:
    """The payments that fit, by id (mapping 1, 5.1)."""
    read: list[Payment] = []
    for row in sorted(balisnap.get("Payment", []), key=lambda r: r["payment_id"]):
        if fits(row):
            when = n.instant(row["payment_date"])
            assert when is not None
            status, known, word = payment_status(row)
            key = n.key(n.PAYMENT_NAMESPACE, f"balisnap:Payment:{row['payment_id']}")
            amount = n.money(row["amount"])[0]
            cancelled = word in ("cancelled", "canceled")
            read.append(Payment(row["payment_id"], row["booking_id"], key, when, amount, status, known, cancelled, row))
    return read


def proof(payments: list[Payment]) -> int:
    """Mapping 4.3, strengths 5 to 3: what a balisnap candidate's payments prove; 0 when they prove nothing."""
    best = 0
    for payment in payments:
        if payment.status in CAPTURES:
            if n.text(payment.row["gateway_capture_id"]) is not None:
                best = max(best, 5)
            elif n.text(payment.row["payment_ref"]) is not None:
                best = max(best, 4)
            else:
                best = max(best, 3)
    return best


def status_of_payments(payments: list[Payment]) -> str:
    """Mapping 5.2: what the payments of all balisnap candidates decide (at least one payment)."""
    captures = [p for p in payments if p.status in CAPTURES]
    refunds = [p for p in payments if p.status == "REFUNDED"]
    if refunds:
        last_refund = max(p.time for p in refunds)
        # At equal times a capture comes before a refund, so only a strictly later one speaks against it.
        none_later = all(p.time <= last_refund for p in captures)
        enough = sum(abs(p.amount) for p in refunds) >= sum(p.amount for p in captures)
        if not captures or (none_later and enough):
            return "REFUNDED"
    if captures:
        return "PAID"
    if any(p.status == "PENDING_PAYMENT" for p in payments):
        return "PENDING_PAYMENT"
    return "FAILED"


def status_of_booking(row: Row) -> str:
    """Mapping 5.2, no payment rows: balisnap's own status."""
    return BOOKING_WORDS.get(balisnap_word(row), "PENDING_PAYMENT")


def balisnap_word(row: Row) -> str:
    """Balisnap's status of a booking: `status_v2`, when null `status`, in upper case (mapping 4.3, 4.7, 5.2)."""
    return n.enum_like(row["status_v2"]) or n.enum_like(row["status"]) or ""


def build_events(
    payments: list[Payment], balisnap: Tables, booking_keys: dict[int, uuid.UUID], before: Tables, queue: Queue
) -> list[Row]:
    """Mapping 5.1: one row per payment; payments in the bridge which are not written again stay as they are."""
    rows: list[Row] = []
    for raw in balisnap.get("Payment", []):
        if raw["booking_id"] not in booking_keys:
            queue.add("PAYMENT_LINK", "balisnap", "Payment", raw["payment_id"], "NO_MATCH")
        elif not fits(raw):
            queue.booking("balisnap", "Payment", raw["payment_id"])
    bridged = [p for p in payments if p.booking_id in booking_keys]
    keys = {p.key for p in bridged}
    stay = [dict(r) for r in before.get("payment_event", []) if r["payment_key"] not in keys]
    refs_taken = {r["payment_ref"] for r in stay}
    for payment in bridged:
        raw = payment.row
        currency, bad_currency = n.currency(raw["currency_code"])
        amount, bad_amount = n.money(raw["amount"])
        payment_ref = n.text(raw["payment_ref"])
        duplicated = payment_ref is not None and payment_ref in refs_taken
        if duplicated:
            payment_ref = None
        elif payment_ref is not None:
            refs_taken.add(payment_ref)
        halves = (n.text(raw["payment_status"]) or "", n.text(raw["payment_status_v2"]) or "")
        texts = {
            "method": (n.enum_like(raw["payment_method"]), 32),
            "gateway": (n.enum_like(raw["gateway"]), 64),
            "status_raw": ("|".join(halves), 64),
        }
        too_long = any(value is not None and len(value) > width for value, width in texts.values())
        if bad_currency or bad_amount or duplicated or too_long or not payment.status_known:
            queue.booking("balisnap", "Payment", payment.id)
        rows.append(
            {
                "payment_key": payment.key,
                "booking_key": booking_keys[payment.booking_id],
                "payment_time": payment.time,
                "amount": amount,
                "currency_code": currency,
                "gateway_order_id": n.text(raw["gateway_order_id"]),
                "gateway_capture_id": n.text(raw["gateway_capture_id"]),
                "payment_ref": payment_ref,
                "payment_status_v2": payment.status,
                "raw_payload": raw["raw_payload"],
                **{name: value[:width] if value is not None else None for name, (value, width) in texts.items()},
            }
        )
    return rows + stay


def finance_of(bstadmin: Tables) -> dict[int, Row]:
    """The finance of each bstadmin booking, with its items under `_items`."""
    items: dict[int, list[Row]] = {}
    for item in bstadmin.get("booking_finance_items", []):
        items.setdefault(item["booking_finance_id"], []).append(item)
    return {
        row["booking_id"]: {**row, "_items": items.get(row["booking_finance_id"], [])}
        for row in bstadmin.get("booking_finances", [])
    }


def is_settled(finance: Row | None) -> bool:
    """Mapping 4.7, 5.5: it has items, and all are paid."""
    return bool(finance and finance["_items"]) and all(item["paid"] for item in finance["_items"])


def build_finance(
    finances: dict[int, Row],
    ranked: list[tuple[uuid.UUID, list[int]]],
    before: Tables,
    queue: Queue,
) -> list[Row]:
    """Mapping 5.5: one row per booking; `ranked` holds each booking's bstadmin candidates, the best first."""
    rows: list[Row] = []
    linked: set[int] = set()
    for booking_key, ids in ranked:
        linked.update(ids)
        with_one = [finances[i] for i in ids if i in finances]
        for other in with_one[1:]:
            queue.add("PAYMENT_LINK", "bstadmin", "booking_finances", other["booking_finance_id"], "MULTI_MATCH")
        for finance in with_one[:1]:
            fid = finance["booking_finance_id"]
            rows.append(
                {
                    "finance_bridge_key": n.key(n.PAYMENT_NAMESPACE, f"bstadmin:booking_finances:{fid}"),
                    "booking_key": booking_key,
                    "booking_finance_id": fid,
                    "pattern_id": finance["pattern_id"],
                    "validated_at": n.instant(finance["validated_at"]),
                    "is_locked": finance["is_locked"],
                    "settlement_status": "SETTLED" if is_settled(finance) else "PENDING",
                }
            )
    for booking_id, finance in finances.items():
        if booking_id not in linked:
            queue.add("PAYMENT_LINK", "bstadmin", "booking_finances", finance["booking_finance_id"], "NO_MATCH")
    keys = {r["finance_bridge_key"] for r in rows}
    bookings = {r["booking_key"] for r in rows}
    stay = [
        dict(r)
        for r in before.get("ops_finance_bridge", [])
        if r["booking_key"] not in bookings and r["finance_bridge_key"] not in keys
    ]
    return rows + stay
