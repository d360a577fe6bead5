-- Bookings of the read model as comparisons need them: by bstadmin's numbers, by their keys, or by the identities of
-- bookings that no backfill has met yet. What begins with _ stands on no page.
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
        b.settlement,
        b.booking_key as _key,
        (
            select max(a.driver_id)
            from public.ops_assignment as a
            where a.booking_key = b.booking_key and a.is_active
        ) as _board_driver_id,
        array(
            select r.external_ref
            from public.channel_external_refs as r
            where
                r.entity_key = b.booking_key
                and r.entity_type = 'BOOKING'
                and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'
        ) as _numbers,
        (
            select count(*) > 1
            from public.channel_external_refs as r
            where
                r.entity_key = b.booking_key
                and r.entity_type = 'BOOKING'
                and r.external_ref_kind in ('BSTADMIN_BOOKING_ID', 'BALISNAP_BOOKING_ID')
        ) as _has_several,
        (
            select count(*) > 1
            from public.channel_external_refs as r
            where
                r.entity_key = b.booking_key
                and r.entity_type = 'BOOKING'
                and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'
        ) as _has_twins,
        (
            select count(*) > 0
            from public.unmapped_queue as q
            where
                q.queue_type = 'BOOKING_REVIEW'
                and q.reason_code = 'MULTI_MATCH'
                and q.source_table = 'booking_identity'
                and q.source_pk = b.channel || ':' || b.reference
        ) as _is_reviewed,
        coalesce(
            (
                select t.told
                from phase2.told_as_landed as t
                where t.booking_key = b.booking_key
            ),
            (
                select t.told
                from ops_read.shadow_told as t
                where t.booking_key = b.booking_key
            )
        ) as _told,
        (
            select count(*) > 0
            from phase2.told_since as t
            where t.booking_key = b.booking_key
        ) as _is_ingested
    from ops_read.ops_bookings as b
    where
        b.booking_key = any(cast(%(keys)s as uuid[]))
        or b.booking_key = any(
            array(
                select r.entity_key
                from public.channel_external_refs as r
                where
                    r.entity_type = 'BOOKING'
                    and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'
                    and r.external_ref = any(cast(%(numbers)s as text[]))
            )
        )
        -- of bookings that bstadmin holds and no backfill has met yet
        or b.booking_key = any(
            array(
                select c.booking_key
                from public.booking_core as c
                inner join jsonb_to_recordset(%(identities)s::jsonb) as u (channel text, reference text)
                    on
                        c.channel_code = rulebook.booking_channel(u.channel)
                        and c.external_booking_ref = rulebook.norm_ref(u.reference)
            )
        )
) as p
