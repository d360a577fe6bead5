-- A page of the assignment board from the read model: bookings with a driver, found by indexes alone before their rows
-- are put together.
with keys as materialized (
    (
        select c.booking_key
        from ops_read.ops_places as c
        where
            exists (
                select 1 from public.ops_assignment as a
                where a.booking_key = c.booking_key and a.is_active and a.driver_id is not null
            )
            -- @if date_from
            and c.tour_date >= %(date_from)s
            -- @end
            -- @if date_to
            and c.tour_date <= %(date_to)s
            -- @end
            -- @if after_date
            and (c.tour_date, c.created_at) < (%(after_date)s::date, %(after_created)s::timestamptz)
            -- @end
        order by c.tour_date desc, c.created_at desc
        fetch first %(size)s rows with ties
    )
    -- @if after_date
    -- the cursor stands among these, the page leaves out those before it
    union all
    select c.booking_key
    from ops_read.ops_places as c
    where
        exists (
            select 1 from public.ops_assignment as a
            where a.booking_key = c.booking_key and a.is_active and a.driver_id is not null
        )
        and (c.tour_date, c.created_at) = (%(after_date)s::date, %(after_created)s::timestamptz)
-- @end
)

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
        b.booking_key = any(array(select k.booking_key from keys as k))
        and b.driver_id is not null
        -- @if after_date
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
