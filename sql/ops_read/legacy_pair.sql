-- Bookings of bstadmin as comparisons need them, by their numbers, or by references as the core and as
-- bstadmin may write them. What begins with _ stands on no page.
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
        b.main_contact_email as customer_email,
        b.phone_number as customer_phone,
        b.pickup_location,
        b.meeting_point,
        b.number_of_adult as adults,
        b.number_of_child as children,
        b.currency,
        b.total_price::text as total_price,
        b.status::text as status,
        b.is_paid,
        b.paid_at at time zone 'UTC' as paid_at,
        b.package_id,
        b.assigned_driver_id as driver_id,
        b.assigned_at at time zone 'UTC' as assigned_at,
        b.note,
        f.booking_finance_id as finance_id,
        f.pattern_id,
        f.validated_at at time zone 'UTC' as validated_at,
        f.is_locked,
        case
            when f.booking_finance_id is not null
                then case when i.items > 0 and i.unpaid = 0 then 'SETTLED' else 'PENDING' end
        end as settlement,
        b.assigned_driver_id as _board_driver_id,
        coalesce(i.items, 0) as _finance_items,
        coalesce(i.unpaid, 0) as _unpaid_items
    from public.bookings as b
    left join public.booking_finances as f on b.booking_id = f.booking_id
    left join lateral (
        select
            count(*) as items,
            count(*) filter (where not n.paid) as unpaid
        from public.booking_finance_items as n
        where n.booking_finance_id = f.booking_finance_id
    ) as i on true
    where
        b.booking_id = any(cast(%(numbers)s as bigint[]))
        or b.booking_ref = any(cast(%(refs)s as text[]))
) as p
