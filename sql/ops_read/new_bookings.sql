-- A page of the booking list from the read model: the latest tour first. What is searched for was looked up before
-- (new_found.sql, new_met.sql): `found`.
select to_jsonb(p) as page_row
from (
    select
        b.id,
        b.channel,
        b.reference,
        b.created_at,
        b.booked_on,
        b.tour_date,
        b.tour_time,
        b.customer_name,
        b.adults,
        b.children,
        b.currency,
        b.total_price::text as total_price,
        b.status,
        b.is_paid,
        b.package_id,
        b.driver_id,
        b.ops_id as _number,
        b.booking_key as _key
    from ops_read.ops_bookings as b
    where
        true
        -- @if status
        and b.status = %(status)s
        -- @end
        -- @if source
        and b.channel = %(source)s
        -- @end
        -- @if date_from
        and b.tour_date >= %(date_from)s
        -- @end
        -- @if date_to
        and b.tour_date <= %(date_to)s
        -- @end
        -- @if found
        and b.booking_key = any(%(found)s::uuid[])
        -- @end
        -- @if after_date
        and (b.tour_date, b.created_at) <= (%(after_date)s::date, %(after_created)s::timestamptz)
        and (b.tour_date, b.created_at, coalesce(b.ops_id, 9223372036854775807), b.booking_key)
        < (
            %(after_date)s::date, %(after_created)s::timestamptz,
            coalesce(%(after_number)s::bigint, 9223372036854775807),
            coalesce(%(after_key)s::uuid, '00000000-0000-0000-0000-000000000000')
        )
        -- @end
    order by
        b.tour_date desc, b.created_at desc, coalesce(b.ops_id, 9223372036854775807) desc, b.booking_key desc
    limit %(size)s
) as p
