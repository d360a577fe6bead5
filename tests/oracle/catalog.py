"""Batch C: the catalog (mapping 3)."""

import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.oracle import normalise as n
from tests.oracle.unmapped import Queue, resolutions

Row = dict[str, Any]
Tables = dict[str, list[Row]]


@dataclass(frozen=True)
class Target:
    """Where a package maps to (mapping 3.2, 3.3), and by which level: 0 a person, 1 id, 2 slug, 3 name, 4 its own."""

    level: int
    product_key: uuid.UUID
    variant_key: uuid.UUID | None


@dataclass
class Catalog:
    """What batch C made, and the look-ups that bookings need (mapping 4.8, 4.9)."""

    tables: Tables
    variant_keys: dict[int, uuid.UUID]
    packages: dict[int, Target]
    variant_of_legacy: dict[int, uuid.UUID]
    product_of_legacy: dict[int, uuid.UUID]


@dataclass
class Sources:
    """The source rows by id, in the order of their ids, the valid ones apart."""

    products: dict[int, Row] = field(default_factory=dict)
    variants: dict[int, Row] = field(default_factory=dict)
    packages: dict[int, Row] = field(default_factory=dict)
    tour_packages: dict[int, Row] = field(default_factory=dict)


def by_id(rows: list[Row], column: str) -> dict[int, Row]:
    """Rows by their id, lowest first."""
    return {row[column]: row for row in sorted(rows, key=lambda r: r[column])}


def product_key(product_id: int) -> uuid.UUID:
    """Mapping 2: key of a balisnap product."""
    return n.key(n.PRODUCT_NAMESPACE, f"balisnap:TourProduct:{product_id}")


def variant_key(variant_id: int) -> uuid.UUID:
    """Mapping 2: key of a balisnap variant."""
    return n.key(n.VARIANT_NAMESPACE, f"balisnap:TourVariant:{variant_id}")


def own_product_key(package_id: int) -> uuid.UUID:
    """Mapping 2, 3.4: key of the product that a package without a match becomes."""
    return n.key(n.PRODUCT_NAMESPACE, f"bstadmin:tour_packages:{package_id}")


def own_variant_key(package_id: int) -> uuid.UUID:
    """Mapping 2, 3.4: key of the variant that a package without a match becomes."""
    return n.key(n.VARIANT_NAMESPACE, f"bstadmin:tour_packages:{package_id}")


def cut(value: str | None, width: int, queue: Queue, system: str, table: str, pk: int) -> str | None:
    """Mapping 1: a text longer than its column is cut to fit, and its row goes to review."""
    if value is not None and len(value) > width:
        queue.catalog(system, table, pk)
        return value[:width]
    return value


def valid_sources(balisnap: Tables, bstadmin: Tables, queue: Queue) -> Sources:
    """Mapping 3.1: what is invalid is queued and takes no further part; bad currency and money go to review."""
    found = Sources(packages=by_id(balisnap.get("TourPackage", []), "package_id"))
    for pid, row in by_id(balisnap.get("TourProduct", []), "product_id").items():
        if n.text(row["product_name"]) is None and n.slug(row["slug"]) is None:
            queue.add("PRODUCT_MAPPING", "balisnap", "TourProduct", pid, "INVALID_SOURCE")
        else:
            found.products[pid] = row
    for vid, row in by_id(balisnap.get("TourVariant", []), "variant_id").items():
        if row["product_id"] not in found.products:
            queue.add("VARIANT_MAPPING", "balisnap", "TourVariant", vid, "INVALID_SOURCE")
        else:
            found.variants[vid] = row
    for pid, row in by_id(bstadmin.get("tour_packages", []), "package_id").items():
        if n.text(row["package_name"]) is None and n.slug(row["slug"]) is None:
            queue.add("PRODUCT_MAPPING", "bstadmin", "tour_packages", pid, "INVALID_SOURCE")
        else:
            found.tour_packages[pid] = row
            if row["base_currency"] is None or n.currency(row["base_currency"])[1]:
                queue.catalog("bstadmin", "tour_packages", pid)
    for system, table, rows in (
        ("balisnap", "TourPackage", found.packages),
        ("bstadmin", "tour_packages", found.tour_packages),
    ):
        for pid, row in rows.items():
            if n.money(row["price_per_person"])[1] or n.money(row["price_per_child"])[1]:
                queue.catalog(system, table, pid)
    return found


def natural_match(pid: int, found: Sources) -> tuple[int, set[int]]:
    """Mapping 3.2: the level at which a package has candidates, and the balisnap products that are (none: level 4)."""
    package = found.tour_packages[pid]
    slug, name = n.slug(package["slug"]), n.match_name(package["package_name"])
    by_legacy = {p for p, row in found.products.items() if row["legacy_package_id"] == pid}
    by_legacy |= {row["product_id"] for row in found.variants.values() if row["legacy_package_id"] == pid}
    by_slug = {p for p, row in found.products.items() if slug is not None and n.slug(row["slug"]) == slug}
    by_name = {p for p, row in found.products.items() if name is not None and n.match_name(row["product_name"]) == name}
    if by_legacy:
        agreeing = by_legacy & (by_slug | by_name)
        others = (by_slug | by_name) - by_legacy
        if not agreeing and others:
            # The ids of the two databases are counted apart: evidence against the id makes it ambiguous.
            return 1, by_legacy | others
        return 1, by_legacy
    if by_slug:
        return 2, by_slug
    if by_name:
        return 3, by_name
    return 4, set()


def variant_for(pid: int, product_id: int, found: Sources) -> uuid.UUID | None:
    """Mapping 3.3: the variant of the product that a matched package maps to, if any."""
    variants = [row for row in found.variants.values() if row["product_id"] == product_id]
    for row in variants:
        if row["legacy_package_id"] == pid:
            return variant_key(row["variant_id"])
    defaults = [row for row in variants if row["is_default"]]
    if defaults:
        first = min(defaults, key=lambda row: (not row["is_active"], row["variant_id"]))
        return variant_key(first["variant_id"])
    if len(variants) == 1:
        return variant_key(variants[0]["variant_id"])
    return None


def match_packages(found: Sources, decided: dict[int, tuple[str, str]], queue: Queue) -> dict[int, Target]:
    """Mapping 3.2, 3.3, 3.4, 3.9: where each valid bstadmin package maps to; a MULTI_MATCH one maps to nothing."""
    natural = {pid: natural_match(pid, found) for pid in found.tour_packages}
    products = {str(product_key(p)): p for p in found.products}
    variants = {str(variant_key(v)): row["product_id"] for v, row in found.variants.items()}
    own_keys = {("PRODUCT", str(own_product_key(p))): p for p in natural}
    own_keys |= {("VARIANT", str(own_variant_key(p))): p for p in natural}

    def chosen(pid: int) -> int | None:
        """The package whose own product a person chose for this one."""
        return own_keys.get(decided.get(pid, ("", "")))

    def known(choice: tuple[str, str]) -> bool:
        return (choice[0] == "PRODUCT" and choice[1] in products) or (choice[0] == "VARIANT" and choice[1] in variants)

    own = {
        pid
        for pid, (level, _) in natural.items()
        if chosen(pid) == pid or (level == 4 and chosen(pid) is None and not (pid in decided and known(decided[pid])))
    }
    mapped: dict[int, Target] = {}
    for pid, (level, candidates) in natural.items():
        choice = decided.get(pid)
        other = chosen(pid)
        if pid in own:
            mapped[pid] = Target(4, own_product_key(pid), own_variant_key(pid))
            if level == 4 and other is None:
                queue.add("PRODUCT_MAPPING", "bstadmin", "tour_packages", pid, "NO_MATCH")
        elif choice is not None and other is not None and other in own:
            mapped[pid] = Target(0, own_product_key(other), own_variant_key(other))
        elif choice is not None and choice[0] == "PRODUCT" and choice[1] in products:
            p = products[choice[1]]
            mapped[pid] = Target(0, product_key(p), variant_for(pid, p, found))
        elif choice is not None and choice[0] == "VARIANT" and choice[1] in variants:
            mapped[pid] = Target(0, product_key(variants[choice[1]]), uuid.UUID(choice[1]))
        elif len(candidates) == 1:
            (p,) = candidates
            mapped[pid] = Target(level, product_key(p), variant_for(pid, p, found))
        elif candidates:
            queue.add("PRODUCT_MAPPING", "bstadmin", "tour_packages", pid, "MULTI_MATCH")
        else:
            mapped[pid] = Target(4, own_product_key(pid), own_variant_key(pid))
            queue.add("PRODUCT_MAPPING", "bstadmin", "tour_packages", pid, "NO_MATCH")
    return mapped


def unique(wanted: list[tuple[Any, str, int]], reserved: set[str], width: int) -> dict[Any, str]:
    """Mapping 1, slug and "two values that become equal": the first keeps it, the others get `-{source_pk}`.

    `wanted` holds (key, value, source pk), the one with the better right first.
    """
    given: dict[Any, str] = {}
    taken = set(reserved)
    for key, value, _ in wanted:
        if value not in taken:
            given[key] = value
            taken.add(value)
    for key, value, pk in wanted:
        if key in given:
            continue
        suffix, base = "", value
        while value in taken:
            suffix += f"-{pk}"
            value = base[: width - len(suffix)] + suffix
        given[key] = value
        taken.add(value)
    return given


def mapped_to(targets: dict[int, Target], **wanted: uuid.UUID) -> list[int]:
    """The packages that map to a product or a variant: strongest level first, then the lowest id (mapping 3.5)."""
    pids = [pid for pid, t in targets.items() if all(getattr(t, name) == key for name, key in wanted.items())]
    return sorted(pids, key=lambda pid: (targets[pid].level, pid))


def cover(images: list[Row], package_id: int) -> str | None:
    """Mapping 3.5: the cover image of a package, the one with the lowest id."""
    usable = [row for row in images if row["tour_id"] == package_id and n.text(row["url"]) is not None]
    return n.text(min(usable, key=lambda row: row["image_id"])["url"]) if usable else None


def public_attributes(
    suppliers: list[tuple[str, str, int, Row]], covers: list[str | None], queue: Queue
) -> dict[str, Any]:
    """Mapping 3.5: the public attributes, each from the first supplier (product, packages) that has it."""
    values: dict[str, Any] = {}
    for column in ("short_description", "description", "thumbnail_url", "color_code", "priority"):
        values[column] = None
        for system, table, pk, row in suppliers:
            raw = row[column]
            if column in ("short_description", "description"):
                clean: Any = n.lines(raw)
            elif column == "priority":
                clean = raw
            else:
                clean = n.text(raw)
            if column == "color_code":
                clean = cut(clean, 32, queue, system, table, pk)
            if clean is not None:
                values[column] = clean
                break
    if values["thumbnail_url"] is None:
        values["thumbnail_url"] = next((url for url in covers if url is not None), None)
    return values


def natural_slug(row: Row, name: str, table: str, pk: int, queue: Queue) -> str:
    """Mapping 1, slug; 3.1: a missing slug is made from the name."""
    system = "balisnap" if table == "TourProduct" else "bstadmin"
    made = n.slug(row["slug"]) or n.slug(n.text(row[name]))
    if made is None:
        queue.catalog(system, table, pk)
        made = f"{'product' if table == 'TourProduct' else 'package'}-{pk}"
    return cut(made, 191, queue, system, table, pk) or ""


def build_products(
    found: Sources, targets: dict[int, Target], balisnap: Tables, bstadmin: Tables, before: Tables, queue: Queue
) -> list[Row]:
    """Mapping 3.1, 3.4, 3.5: balisnap's products, and those that packages without a match become."""
    tours = by_id(bstadmin.get("tours", []), "tour_id")
    rows: list[Row] = []
    wanted: list[tuple[Any, str, int]] = []
    for pid, row in found.products.items():
        key = product_key(pid)
        slug = natural_slug(row, "product_name", "TourProduct", pid, queue)
        suppliers = [("balisnap", "TourProduct", pid, row)]
        covers: list[str | None] = []
        legacy = row["legacy_package_id"]
        if legacy in found.packages:
            suppliers.append(("balisnap", "TourPackage", legacy, found.packages[legacy]))
            covers.append(cover(balisnap.get("TourImage", []), legacy))
        for package in mapped_to(targets, product_key=key)[:1]:
            suppliers.append(("bstadmin", "tour_packages", package, found.tour_packages[package]))
            covers.append(cover(bstadmin.get("tour_images", []), package))
        own = ("balisnap", "TourProduct", pid)
        rows.append(
            {
                "product_key": key,
                "name": cut(n.text(row["product_name"]) or n.slug(row["slug"]), 255, queue, *own),
                "product_category": cut(n.text(row["category"]), 128, queue, *own),
                "is_active": row["is_active"],
                "is_featured": row["is_featured"],
                "country_code": cut(n.enum_like(row["country_code"]) or "ID", 2, queue, *own),
                "region": cut(n.text(row["region"]), 128, queue, *own),
                "base_meeting_point": n.place(row["base_meeting_point"]),
                **public_attributes(suppliers, covers, queue),
            }
        )
        wanted.append((key, slug, pid))
    for pid, target in targets.items():
        if target.level != 4:
            continue
        row = found.tour_packages[pid]
        tour = tours.get(row["tour_id"])
        own = ("bstadmin", "tour_packages", pid)
        wanted.append((target.product_key, natural_slug(row, "package_name", "tour_packages", pid, queue), pid))
        covers = [cover(bstadmin.get("tour_images", []), pid)]
        rows.append(
            {
                "product_key": target.product_key,
                "name": cut(n.text(row["package_name"]) or n.slug(row["slug"]), 255, queue, *own),
                "product_category": None,
                "is_active": tour is None or tour["is_active"],
                "is_featured": row["is_featured"],
                "country_code": "ID",
                "region": None,
                "base_meeting_point": None,
                **public_attributes([(*own, row)], covers, queue),
            }
        )
    gone = [r for r in before.get("catalog_product", []) if r["product_key"] not in {k for k, _, _ in wanted}]
    slugs = unique(wanted, {r["slug"] for r in gone}, 191)
    return [{**row, "slug": slugs[row["product_key"]]} for row in rows] + [dict(r) for r in gone]


def limits(row: Row) -> Row:
    """Mapping 3.7: duration and smallest group at least 1, cutoff at least 0, impossible values null."""
    low = max(1, row["min_pax"]) if row["min_pax"] is not None else 1
    high, nights, cutoff = row["max_pax"], row["duration_nights"], row["booking_cutoff_hours"]
    return {
        **row,
        "duration_days": max(1, row["duration_days"] if row["duration_days"] is not None else 1),
        "min_pax": low,
        "max_pax": None if high is None or high < low else high,
        "duration_nights": None if nights is None or nights < 0 else nights,
        "booking_cutoff_hours": max(0, cutoff if cutoff is not None else 24),
    }


def build_variants(
    found: Sources, targets: dict[int, Target], bstadmin: Tables, before: Tables, queue: Queue
) -> list[Row]:
    """Mapping 3.1, 3.4, 3.5, 3.7: balisnap's variants, and those that packages without a match become."""
    tours = by_id(bstadmin.get("tours", []), "tour_id")
    rows: list[Row] = []
    for vid, row in found.variants.items():
        key = variant_key(vid)
        own = ("balisnap", "TourVariant", vid)
        fallback: Row = next((found.tour_packages[p] for p in mapped_to(targets, variant_key=key)), {})
        raw_currency = row["currency_code"] if row["currency_code"] is not None else fallback.get("base_currency")
        currency, bad = n.currency(raw_currency)
        if bad:
            queue.catalog(*own)
        code = cut(n.text(row["variant_code"]), 64, queue, *own)
        if code is None:
            queue.catalog(*own)
            code = f"VAR-{vid}"
        name = cut(n.text(row["variant_name"]), 255, queue, *own)
        if name is None:
            queue.catalog(*own)
            name = code

        def first(own_value: int | None, column: str, fallback: Row = fallback) -> int | None:
            return own_value if own_value is not None else fallback.get(column)

        rows.append(
            limits(
                {
                    "variant_key": key,
                    "product_key": product_key(row["product_id"]),
                    "code": code,
                    "name": name,
                    "service_type": n.enum_like(row["service_type"]),
                    "duration_days": first(row["duration_days"], "duration_days"),
                    "duration_nights": row["duration_nights"],
                    "min_pax": first(row["min_pax"], "min_booking"),
                    "max_pax": first(row["max_pax"], "max_booking"),
                    "currency_code": currency,
                    "is_default": row["is_default"],
                    "is_active": row["is_active"],
                    "booking_cutoff_hours": row["booking_cutoff_hours"],
                    "cancellation_policy": n.lines(row["cancellation_policy"]),
                    "_pk": vid,
                }
            )
        )
    for pid, target in targets.items():
        if target.level != 4:
            continue
        row = found.tour_packages[pid]
        tour = tours.get(row["tour_id"])
        rows.append(
            limits(
                {
                    "variant_key": target.variant_key,
                    "product_key": target.product_key,
                    "code": f"PKG-{pid}",
                    "name": (n.text(row["package_name"]) or n.slug(row["slug"]) or "")[:255],
                    "service_type": "PRIVATE",
                    "duration_days": row["duration_days"],
                    "duration_nights": None,
                    "min_pax": row["min_booking"],
                    "max_pax": row["max_booking"],
                    "currency_code": n.currency(row["base_currency"])[0],
                    "is_default": True,
                    "is_active": tour is None or tour["is_active"],
                    "booking_cutoff_hours": 24,
                    "cancellation_policy": None,
                    "_pk": pid,
                }
            )
        )
    keys = {row["variant_key"] for row in rows}
    gone = [dict(r) for r in before.get("catalog_variant", []) if r["variant_key"] not in keys]
    finished: list[Row] = []
    for product in {row["product_key"] for row in rows}:
        mine = [row for row in rows if row["product_key"] == product]
        reserved = {r["code"] for r in gone if r["product_key"] == product}
        codes = unique([(row["variant_key"], row["code"], row["_pk"]) for row in mine], reserved, 64)
        for row in mine:
            pk = row.pop("_pk")
            assert pk is not None
            finished.append({**row, "code": codes[row["variant_key"]]})
    return finished + gone


def fallback_packages(
    variant: Row, source: Row | None, found: Sources, targets: dict[int, Target]
) -> list[tuple[str, str, int, Row]]:
    """Mapping 3.6: the packages that may price a variant without an active rate, in their order."""
    order: list[tuple[str, str, int, Row]] = []

    def add_legacy(pid: int | None) -> None:
        if pid is not None and pid in found.tour_packages:
            order.append(("bstadmin", "tour_packages", pid, found.tour_packages[pid]))
        if pid is not None and pid in found.packages:
            order.append(("balisnap", "TourPackage", pid, found.packages[pid]))

    def add_mapped(pids: list[int]) -> None:
        order.extend(("bstadmin", "tour_packages", pid, found.tour_packages[pid]) for pid in pids)

    if source is not None:
        add_legacy(source["legacy_package_id"])
    add_mapped(mapped_to(targets, variant_key=variant["variant_key"]))
    if source is not None:
        add_legacy(found.products[source["product_id"]]["legacy_package_id"])
    add_mapped(mapped_to(targets, product_key=variant["product_key"]))
    return order


def build_rates(
    found: Sources, targets: dict[int, Target], variants: list[Row], balisnap: Tables, queue: Queue
) -> list[Row]:
    """Mapping 3.1, 3.6: rate plans one row each; fallback rates for variants without an active one."""
    rows: list[Row] = []
    for rid, plan in by_id(balisnap.get("VariantRatePlan", []), "rate_plan_id").items():
        price = plan["price"]
        if plan["variant_id"] not in found.variants:
            queue.catalog("balisnap", "VariantRatePlan", rid, "NO_MATCH")
            continue
        if price is None or Decimal(price).is_nan() or price < 0:
            queue.catalog("balisnap", "VariantRatePlan", rid)
            continue
        currency, bad_currency = n.currency(plan["currency_code"])
        amount, bad_amount = n.money(price)
        if bad_currency or bad_amount:
            queue.catalog("balisnap", "VariantRatePlan", rid)
        rows.append(
            {
                "variant_rate_key": n.key(n.VARIANT_NAMESPACE, f"balisnap:VariantRatePlan:{rid}"),
                "variant_key": variant_key(plan["variant_id"]),
                "traveler_type": n.enum_like(plan["traveler_type"]),
                "currency_code": currency,
                "price": amount,
                "min_quantity": plan["min_quantity"],
                "max_quantity": plan["max_quantity"],
                "valid_from": n.instant(plan["valid_from"]),
                "valid_to": n.instant(plan["valid_to"]),
                "is_active": plan["is_active"],
            }
        )
    priced = {row["variant_key"] for row in rows if row["is_active"]}
    by_key = {variant_key(vid): row for vid, row in found.variants.items()}
    own_of = {t.variant_key: pid for pid, t in targets.items() if t.level == 4}
    for variant in variants:
        key = variant["variant_key"]
        if key in priced or (key not in by_key and key not in own_of):
            continue
        for system, table, pid, package in fallback_packages(variant, by_key.get(key), found, targets):
            adult, child = n.money(package["price_per_person"])[0], n.money(package["price_per_child"])[0]
            if adult <= 0:
                continue
            currency = n.currency(package["base_currency"])[0] if system == "bstadmin" else variant["currency_code"]
            for traveler, price in (("ADULT", adult), ("CHILD", child)):
                if price > 0:
                    rows.append(
                        {
                            "variant_rate_key": n.key(
                                n.VARIANT_NAMESPACE, f"{system}:{table}:{pid}:fallback:{key}:{traveler}"
                            ),
                            "variant_key": key,
                            "traveler_type": traveler,
                            "currency_code": currency,
                            "price": price,
                            "min_quantity": None,
                            "max_quantity": None,
                            "valid_from": None,
                            "valid_to": None,
                            "is_active": True,
                        }
                    )
            break
        else:
            if key in by_key:
                queue.catalog("balisnap", "TourVariant", by_key[key]["variant_id"])
            else:
                queue.catalog("bstadmin", "tour_packages", own_of[key])
    return rows


def ref(entity: str, key: uuid.UUID, channel: str, kind: str, value: object, source: tuple[str, str, object]) -> Row:
    """One row of `channel_external_refs` (mapping 2, 3.8)."""
    return {
        "external_ref_key": n.ref_key(entity, channel, kind, str(value)),
        "entity_type": entity,
        "entity_key": key,
        "channel_code": channel,
        "external_ref_kind": kind,
        "external_ref": str(value),
        "source_system": source[0],
        "source_table": source[1],
        "source_pk": str(source[2]),
    }


def build_refs(found: Sources, targets: dict[int, Target], bstadmin: Tables) -> list[Row]:
    """Mapping 3.8: the source ids of products and variants."""
    rows: list[Row] = []
    for pid, row in found.products.items():
        source = ("balisnap", "TourProduct", pid)
        rows.append(ref("PRODUCT", product_key(pid), "DIRECT", "BALISNAP_PRODUCT_ID", pid, source))
        if row["legacy_package_id"] is not None:
            legacy = row["legacy_package_id"]
            rows.append(ref("PRODUCT", product_key(pid), "DIRECT", "LEGACY_PACKAGE_ID", legacy, source))
    for vid, row in found.variants.items():
        source = ("balisnap", "TourVariant", vid)
        rows.append(ref("VARIANT", variant_key(vid), "DIRECT", "BALISNAP_VARIANT_ID", vid, source))
        if row["legacy_package_id"] is not None:
            legacy = row["legacy_package_id"]
            rows.append(ref("VARIANT", variant_key(vid), "DIRECT", "LEGACY_PACKAGE_ID", legacy, source))
    for pid, target in targets.items():
        source = ("bstadmin", "tour_packages", pid)
        rows.append(ref("PRODUCT", target.product_key, "MANUAL", "BSTADMIN_PACKAGE_ID", pid, source))
        if target.variant_key is not None:
            rows.append(ref("VARIANT", target.variant_key, "MANUAL", "BSTADMIN_PACKAGE_ID", pid, source))
    for tour in bstadmin.get("tours", []):
        packages = [p["package_id"] for p in bstadmin.get("tour_packages", []) if p["tour_id"] == tour["tour_id"]]
        keys = {targets[pid].product_key if pid in targets else None for pid in packages}
        if len(keys) == 1 and None not in keys:
            (key,) = keys
            assert key is not None
            source = ("bstadmin", "tours", tour["tour_id"])
            rows.append(ref("PRODUCT", key, "MANUAL", "BSTADMIN_TOUR_ID", tour["tour_id"], source))
    return rows


def build(balisnap: Tables, bstadmin: Tables, before: Tables, queue: Queue) -> Catalog:
    """Batch C as a whole (mapping 3)."""
    found = valid_sources(balisnap, bstadmin, queue)
    targets = match_packages(found, resolutions(before.get("unmapped_queue", [])), queue)
    variants = build_variants(found, targets, bstadmin, before, queue)
    return Catalog(
        tables={
            "catalog_product": build_products(found, targets, balisnap, bstadmin, before, queue),
            "catalog_variant": variants,
            "catalog_variant_rate": build_rates(found, targets, variants, balisnap, queue),
            "channel_external_refs": build_refs(found, targets, bstadmin),
        },
        variant_keys={vid: variant_key(vid) for vid in found.variants},
        packages=targets,
        variant_of_legacy={
            row["legacy_package_id"]: variant_key(vid)
            for vid, row in found.variants.items()
            if row["legacy_package_id"] is not None
        },
        product_of_legacy={
            row["legacy_package_id"]: product_key(pid)
            for pid, row in found.products.items()
            if row["legacy_package_id"] is not None
        },
    )
