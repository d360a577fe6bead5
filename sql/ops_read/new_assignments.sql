-- A page of the assignment board from the read model: bookings with a driver.
select to_jsonb(p) as page_row
from (
    select
        b.id,
        b.channel,
        b.reference,
        b.created_at,
        b.tour_date,
        b.tour_time,
        b.adults,
        b.children,
        b.pickup_location,
        b.status,
        b.driver_id,
        b.partner_id,
        b.assigned_at,
        b.ops_id as _number,
        b.booking_key as _key
    from ops_read.ops_assignments as b
    where
        b.driver_id is not null
        -- @if driver
        and b.driver_id = %(driver)s
        -- @end
        -- @if date_from
        and b.tour_date >= %(date_from)s
        -- @end
        -- @if date_to
        and b.tour_date <= %(date_to)s
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
