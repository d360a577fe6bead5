-- A page of the assignment board from bstadmin, found as the booking list finds its pages. It knows no partners.
with asked as (
    select
        b.tour_date,
        b.booking_id
    from public.bookings as b
    where
        (b.assigned_driver_id is not null) = %(assigned)s
        and (%(assigned)s or b.status not in ('CANCELLED', 'NO_SHOW'))
        -- @if driver
        and b.assigned_driver_id = %(driver)s
        -- @end
        -- @if date_from
        and b.tour_date >= %(date_from)s::timestamp - interval '8 hours'
        -- @end
        -- @if date_to
        and b.tour_date < %(date_to)s::timestamp + interval '16 hours'
        -- @end
        -- @if after_date
        and b.tour_date <= %(after_date)s::timestamp + interval '16 hours' -- equal: infinity
        and ((b.tour_date + interval '8 hours')::date, b.created_at, b.booking_id)
        < (
            %(after_date)s::date, %(after_created)s::timestamptz at time zone 'UTC',
            coalesce(%(after_number)s::bigint, 9223372036854775807)
        )
        -- @end
    order by b.tour_date desc
    limit %(size)s
),

edge as (
    select date_trunc('day', min(a.tour_date) + interval '8 hours') - interval '8 hours' as starts
    from asked as a
)

select to_jsonb(p) as page_row
from (
    select
        b.booking_id::text as id,
        b.source::text as channel,
        b.booking_ref as reference,
        b.created_at at time zone 'UTC' as created_at,
        (b.tour_date + interval '8 hours')::date as tour_date,
        b.tour_time,
        b.number_of_adult as adults,
        b.number_of_child as children,
        b.pickup_location,
        b.status::text as status,
        b.assigned_driver_id as driver_id,
        null::integer as partner_id,
        b.assigned_at at time zone 'UTC' as assigned_at,
        b.booking_id as _number
    from public.bookings as b
    where
        (b.assigned_driver_id is not null) = %(assigned)s
        and (%(assigned)s or b.status not in ('CANCELLED', 'NO_SHOW'))
        -- @if driver
        and b.assigned_driver_id = %(driver)s
        -- @end
        -- @if date_from
        and b.tour_date >= %(date_from)s::timestamp - interval '8 hours'
        -- @end
        -- @if date_to
        and b.tour_date < %(date_to)s::timestamp + interval '16 hours'
        -- @end
        and b.tour_date >= (select e.starts from edge as e)
        -- @if after_date
        and b.tour_date <= %(after_date)s::timestamp + interval '16 hours' -- equal: infinity
        and ((b.tour_date + interval '8 hours')::date, b.created_at, b.booking_id)
        < (
            %(after_date)s::date, %(after_created)s::timestamptz at time zone 'UTC',
            coalesce(%(after_number)s::bigint, 9223372036854775807)
        )
        -- @end
    order by (b.tour_date + interval '8 hours')::date desc, b.created_at desc, b.booking_id desc
    limit %(size)s
) as p
