"""Source rows with every column, for tests: what a call does not name has a harmless value.

Times are zone-less UTC, as the sources hold them. 2026-05-31T16:00 UTC is midnight of June 1 in Bali.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any

Row = dict[str, Any]

MADE = datetime(2026, 1, 10, 8, 0)
TRAVEL = datetime(2026, 5, 31, 16, 0)


def user(id: str, **given: Any) -> Row:
    """A row of balisnap's `User`."""
    row = {"id": id, "name": None, "email": None, "emailVerified": None, "image": None, "phone_number": None}
    return {**row, "createdAt": MADE, "updatedAt": MADE, **given}


def package(id: int, **given: Any) -> Row:
    """A row of balisnap's `TourPackage`."""
    return {
        "package_id": id,
        "package_name": f"Package {id}",
        "short_description": None,
        "description": None,
        "duration_days": None,
        "price_per_person": Decimal(0),
        "price_per_child": None,
        "min_booking": None,
        "max_booking": None,
        "is_featured": False,
        "thumbnail_url": None,
        "created_at": MADE,
        "updated_at": MADE,
        "slug": f"package-{id}",
        "color_code": None,
        "priority": None,
        **given,
    }


def image(id: int, package_id: int, url: str) -> Row:
    """A row of `TourImage` or `tour_images`: both name a package in `tour_id`."""
    return {"image_id": id, "url": url, "tour_id": package_id, "created_at": MADE}


def product(id: int, **given: Any) -> Row:
    """A row of `TourProduct`."""
    return {
        "product_id": id,
        "legacy_package_id": None,
        "product_name": f"Product {id}",
        "slug": f"product-{id}",
        "short_description": None,
        "description": None,
        "category": None,
        "country_code": "ID",
        "region": None,
        "base_meeting_point": None,
        "is_featured": False,
        "is_active": True,
        "thumbnail_url": None,
        "color_code": None,
        "priority": None,
        "created_at": MADE,
        "updated_at": MADE,
        **given,
    }


def variant(id: int, product_id: int, **given: Any) -> Row:
    """A row of `TourVariant`."""
    return {
        "variant_id": id,
        "product_id": product_id,
        "legacy_package_id": None,
        "variant_code": f"V{id}",
        "variant_name": f"Variant {id}",
        "service_type": "PRIVATE",
        "duration_days": 1,
        "duration_nights": None,
        "min_pax": 1,
        "max_pax": None,
        "currency_code": "USD",
        "is_default": False,
        "is_active": True,
        "booking_cutoff_hours": 24,
        "cancellation_policy": None,
        "created_at": MADE,
        "updated_at": MADE,
        **given,
    }


def plan(id: int, variant_id: int, price: Decimal | int | None = 10, **given: Any) -> Row:
    """A row of `VariantRatePlan`."""
    return {
        "rate_plan_id": id,
        "variant_id": variant_id,
        "traveler_type": "ADULT",
        "price": None if price is None else Decimal(price),
        "currency_code": "USD",
        "min_quantity": None,
        "max_quantity": None,
        "valid_from": None,
        "valid_to": None,
        "season_start": None,
        "season_end": None,
        "is_active": True,
        "created_at": MADE,
        "updated_at": MADE,
        **given,
    }


def departure(id: int, variant_id: int, start: Any = TRAVEL) -> Row:
    """A row of `Departure`."""
    return {
        "departure_id": id,
        "variant_id": variant_id,
        "departure_code": None,
        "start_date": start,
        "end_date": start,
        "cutoff_at": None,
        "capacity_total": 10,
        "capacity_reserved": 0,
        "status": "OPEN",
        "meeting_point": None,
        "note": None,
        "is_active": True,
        "created_at": MADE,
        "updated_at": MADE,
    }


def web(id: int, **given: Any) -> Row:
    """A row of balisnap's `Booking`."""
    return {
        "booking_id": id,
        "user_id": "u1",
        "package_id": None,
        "booking_date": TRAVEL,
        "total_price": Decimal(100),
        "number_of_adult": 2,
        "status": "pending",
        "status_v2": None,
        "currency_code": "USD",
        "created_at": MADE,
        "updated_at": MADE,
        "booking_ref": f"R{id}",
        "main_contact_name": "",
        "main_contact_email": "",
        "phone_number": "",
        "meeting_point": "",
        "note": None,
        "number_of_child": None,
        **given,
    }


def item(id: int, booking_id: int, variant_id: int, **given: Any) -> Row:
    """A row of `BookingItem`."""
    return {
        "booking_item_id": id,
        "booking_id": booking_id,
        "variant_id": variant_id,
        "departure_id": None,
        "item_status": "ACTIVE",
        "currency_code": "USD",
        "adult_qty": 2,
        "child_qty": 0,
        "infant_qty": 0,
        "adult_unit_price": Decimal(50),
        "child_unit_price": Decimal(0),
        "infant_unit_price": Decimal(0),
        "subtotal": Decimal(100),
        "discount_amount": Decimal(0),
        "tax_amount": Decimal(0),
        "total_amount": Decimal(100),
        "snapshot": None,
        "created_at": MADE,
        "updated_at": MADE,
        **given,
    }


def traveler(id: int, booking_item_id: int, **given: Any) -> Row:
    """A row of `BookingTraveler`."""
    return {
        "traveler_id": id,
        "booking_item_id": booking_item_id,
        "traveler_type": "ADULT",
        "title": None,
        "first_name": "Ayu",
        "last_name": None,
        "email": None,
        "phone": None,
        "birth_date": None,
        "nationality": None,
        "passport_number": None,
        "special_request": None,
        "created_at": MADE,
        "updated_at": MADE,
        **given,
    }


def payment(id: int, booking_id: int, **given: Any) -> Row:
    """A row of `Payment`."""
    return {
        "payment_id": id,
        "booking_id": booking_id,
        "user_id": "u1",
        "payment_date": MADE,
        "amount": Decimal(100),
        "payment_method": "paypal",
        "payment_status": "pending",
        "payment_status_v2": None,
        "currency_code": "USD",
        "gateway": None,
        "gateway_order_id": None,
        "gateway_capture_id": None,
        "raw_payload": None,
        "created_at": MADE,
        "updated_at": MADE,
        "payment_ref": None,
        **given,
    }


def ops_user(id: str, **given: Any) -> Row:
    """A row of bstadmin's `users`."""
    return {"id": id, "name": None, "email": None, "created_at": MADE, "updated_at": MADE, **given}


def driver(id: int) -> Row:
    """A row of `drivers`."""
    return {
        "id": id,
        "name": f"Driver {id}",
        "phone": "1",
        "vehicle_type": "car",
        "created_at": MADE,
        "updated_at": MADE,
    }


def tour(id: int, **given: Any) -> Row:
    """A row of `tours`."""
    return {
        "tour_id": id,
        "tour_name": f"Tour {id}",
        "slug": f"tour-{id}",
        "description": None,
        "is_active": True,
        "created_at": MADE,
        "updated_at": MADE,
        **given,
    }


def tour_package(id: int, **given: Any) -> Row:
    """A row of `tour_packages`."""
    return {
        "package_id": id,
        "tour_id": None,
        "package_name": f"Ops package {id}",
        "slug": f"ops-package-{id}",
        "short_description": None,
        "description": None,
        "duration_days": None,
        "price_per_person": None,
        "price_per_child": None,
        "base_currency": "USD",
        "min_booking": None,
        "max_booking": None,
        "is_featured": False,
        "thumbnail_url": None,
        "color_code": None,
        "priority": None,
        "created_at": MADE,
        "updated_at": MADE,
        **given,
    }


def pattern(id: int, package_id: int) -> Row:
    """A row of `tour_cost_patterns`."""
    return {
        "pattern_id": id,
        "package_id": package_id,
        "name": f"Pattern {id}",
        "is_active": True,
        "created_at": MADE,
        "updated_at": MADE,
    }


def ops(id: int, **given: Any) -> Row:
    """A row of `bookings`; unpaid, unlike the column's default."""
    return {
        "booking_id": id,
        "booking_ref": f"R{id}",
        "user_id": "a1",
        "package_id": None,
        "booking_date": MADE,
        "tour_name": "",
        "tour_date": TRAVEL,
        "tour_time": None,
        "total_price": Decimal(100),
        "currency": "USD",
        "total_price_usd": None,
        "total_price_idr": None,
        "fx_rate": None,
        "fx_date": None,
        "number_of_adult": 2,
        "number_of_child": None,
        "status": "NEW",
        "source": "DIRECT",
        "main_contact_name": "",
        "main_contact_email": "",
        "phone_number": "",
        "pickup_location": "",
        "meeting_point": "",
        "note": None,
        "assigned_driver_id": None,
        "assigned_at": None,
        "raw_email_id": None,
        "is_paid": False,
        "paid_at": None,
        "created_at": MADE,
        "updated_at": MADE,
        **given,
    }


def finance(id: int, booking_id: int, **given: Any) -> Row:
    """A row of `booking_finances`."""
    return {
        "booking_finance_id": id,
        "booking_id": booking_id,
        "pattern_id": None,
        "assigned_at": MADE,
        "validated_at": None,
        "is_locked": False,
        "notes": None,
        "created_at": MADE,
        "updated_at": MADE,
        **given,
    }


def finance_item(id: int, booking_finance_id: int, paid: bool) -> Row:
    """A row of `booking_finance_items`."""
    return {
        "finance_item_id": id,
        "booking_finance_id": booking_finance_id,
        "name_snapshot": "Lunch",
        "unit_type": "PER_PAX",
        "unit_price": Decimal(5),
        "amount": Decimal(10),
        "paid": paid,
        "created_at": MADE,
        "updated_at": MADE,
    }
