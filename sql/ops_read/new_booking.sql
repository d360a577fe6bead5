-- One booking of the read model, by bstadmin's number or by its key.
select to_jsonb(p) as page_row
from (
    select
        b.id,
        b.booking_key,
        b.channel,
        b.reference,
        b.created_at,
        b.booked_on,
        b.tour_date,
        b.tour_time,
        b.customer_name,
        b.customer_email,
        b.customer_phone,
        b.pickup_location,
        b.meeting_point,
        b.adults,
        b.children,
        b.currency,
        b.total_price::text as total_price,
        b.status,
        b.is_paid,
        b.paid_at,
        b.package_id,
        b.driver_id,
        b.assigned_at,
        b.note,
        b.finance_id,
        b.pattern_id,
        b.validated_at,
        b.is_locked,
        b.settlement
    from ops_read.ops_bookings as b
    where
        true
        -- @if key
        and b.booking_key = %(key)s
        -- @end
        -- @if number
        and b.booking_key = (
            select r.entity_key
            from public.channel_external_refs as r
            where
                r.entity_type = 'BOOKING'
                and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'
                and r.external_ref = %(number)s
            order by r.entity_key
            limit 1
        )
        -- @end
) as p
