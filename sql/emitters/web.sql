-- Bookings of balisnap that changed, or of which a payment did; one JSON document each, in the order of their changes.
-- Values are as they stand: what they mean is for the rulebook, which is in the ops database (web_events.sql).
with changed as (
    select b.booking_id from public."Booking" as b
    where b.updated_at >= $1 and isfinite(b.updated_at)
    union
    select p.booking_id from public."Payment" as p
    where p.updated_at >= $1 and isfinite(p.updated_at)
)

select
    -- a time in the future would carry the watermark beyond what is yet to come
    least(greatest(b.updated_at, p.changed_at), localtimestamp) as changed_at,
    jsonb_build_object(
        'booking', to_jsonb(b) - 'user_id', 'items', coalesce(i.items, '[]'), 'payments', coalesce(p.payments, '[]')
    )::text as document
from changed
inner join public."Booking" as b on changed.booking_id = b.booking_id
left join lateral (
    select
        jsonb_agg(
            jsonb_build_object(
                'id', x.booking_item_id, 'status', x.item_status, 'currency', x.currency_code,
                'total', x.total_amount, 'startsAt', d.start_date
            )
            order by x.booking_item_id
        ) as items
    from public."BookingItem" as x
    left join public."Departure" as d on x.departure_id = d.departure_id
    where x.booking_id = b.booking_id
) as i on true
left join lateral (
    select
        max(x.updated_at) as changed_at,
        jsonb_agg(
            jsonb_build_object(
                'id', x.payment_id, 'status', x.payment_status, 'statusV2', x.payment_status_v2,
                'amount', x.amount, 'currency', x.currency_code, 'updatedAt', x.updated_at
            )
            order by x.payment_id
        ) as payments
    from public."Payment" as x
    where x.booking_id = b.booking_id
) as p on true
order by changed_at, b.booking_id
