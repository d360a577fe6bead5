-- Money, counts and currency are left raw: a review row needs them, and item totals are sums of stored amounts.
-- item_status is an enum in the source, so it needs no normalisation.
select
    booking_item_id,
    booking_id,
    variant_id,
    departure_id,
    item_status,
    currency_code,
    adult_qty,
    child_qty,
    infant_qty,
    adult_unit_price,
    child_unit_price,
    infant_unit_price,
    subtotal,
    discount_amount,
    tax_amount,
    total_amount,
    snapshot,
    item_status = 'CANCELLED' as is_cancelled
from {{ source('balisnap', 'BookingItem') }}
