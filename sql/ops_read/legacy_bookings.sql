-- A page of the booking list from bstadmin, the latest tour first. Its index knows instants, the page knows days in
-- Bali: so the first look finds the day on which the page ends, and the second sorts the days down to it.
with asked as (
    select
        b.tour_date,
        b.booking_id
    from public.bookings as b
    where
        true
        -- @if status
        and b.status = %(status)s::public."BookingStatus"
        -- @end
        -- @if source
        and b.source = %(source)s::public."BookingSource"
        -- @end
        -- @if date_from
        and b.tour_date >= %(date_from)s::timestamp - interval '8 hours'
        -- @end
        -- @if date_to
        and b.tour_date < %(date_to)s::timestamp + interval '16 hours'
        -- @end
        -- @if pattern
        and (b.booking_ref ilike %(pattern)s or b.main_contact_name ilike %(pattern)s)
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
        (b.booking_date + interval '8 hours')::date as booked_on,
        (b.tour_date + interval '8 hours')::date as tour_date,
        b.tour_time,
        b.main_contact_name as customer_name,
        b.number_of_adult as adults,
        b.number_of_child as children,
        b.currency,
        b.total_price::text as total_price,
        b.status::text as status,
        b.is_paid,
        b.package_id,
        b.assigned_driver_id as driver_id,
        b.booking_id as _number
    from public.bookings as b
    where
        true
        -- @if status
        and b.status = %(status)s::public."BookingStatus"
        -- @end
        -- @if source
        and b.source = %(source)s::public."BookingSource"
        -- @end
        -- @if date_from
        and b.tour_date >= %(date_from)s::timestamp - interval '8 hours'
        -- @end
        -- @if date_to
        and b.tour_date < %(date_to)s::timestamp + interval '16 hours'
        -- @end
        -- @if pattern
        and (b.booking_ref ilike %(pattern)s or b.main_contact_name ilike %(pattern)s)
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
