-- Every booking of bstadmin as landed against what the read model shows: in one pass over both, which parallel workers
-- share. For that nothing may be asked anew for a row: whether a rule is approved is asked once, before they start.
{%- set approved = "exists (select 1 from approved as a where a.approved = '{}')" %}
with approved as not materialized (
    {{ read_approved(ref('approved_differences')) }}
),

items as (
    select
        booking_finance_id,
        count(*) as finance_items,
        count(*) filter (where not paid) as unpaid_items
    from {{ source('bstadmin', 'booking_finance_items') }}
    group by booking_finance_id
),

legacy as (
    select
        bookings.booking_id as number,
        bookings.booking_id::text as id,
        bookings.source as channel,
        bookings.booking_ref as reference,
        bookings.created_at at time zone 'UTC' as created_at,
        (bookings.booking_date + interval '8 hours')::date as booked_on,
        (bookings.tour_date + interval '8 hours')::date as tour_date,
        bookings.tour_time,
        bookings.main_contact_name as customer_name,
        bookings.main_contact_email as customer_email,
        bookings.phone_number as customer_phone,
        bookings.pickup_location,
        bookings.meeting_point,
        bookings.number_of_adult as adults,
        bookings.number_of_child as children,
        bookings.currency,
        bookings.total_price,
        bookings.status,
        bookings.is_paid,
        bookings.paid_at at time zone 'UTC' as paid_at,
        bookings.package_id::bigint as package_id,
        bookings.assigned_driver_id as driver_id,
        bookings.assigned_driver_id as board_driver_id,
        bookings.assigned_at at time zone 'UTC' as assigned_at,
        bookings.note,
        finances.booking_finance_id::bigint as finance_id,
        finances.pattern_id::bigint as pattern_id,
        finances.validated_at at time zone 'UTC' as validated_at,
        finances.is_locked,
        case
            when finances.booking_finance_id is not null
                then case when items.finance_items > 0 and items.unpaid_items = 0 then 'SETTLED' else 'PENDING' end
        end as settlement,
        coalesce(items.finance_items, 0) as finance_items,
        coalesce(items.unpaid_items, 0) as unpaid_items
    from {{ source('bstadmin', 'bookings') }} as bookings
    left join {{ source('bstadmin', 'booking_finances') }} as finances on bookings.booking_id = finances.booking_id
    left join items on finances.booking_finance_id = items.booking_finance_id
),

numbers as (
    select
        refs.external_ref::bigint as number,
        refs.entity_key
    from {{ source('bridge', 'channel_external_refs') }} as refs
    where
        refs.entity_type = 'BOOKING'
        and refs.external_ref_kind = 'BSTADMIN_BOOKING_ID'
        and refs.external_ref ~ '^[0-9]{1,10}$'
),

several as (
    select
        refs.entity_key,
        count(*) filter (where refs.external_ref_kind = 'BSTADMIN_BOOKING_ID') > 1 as are_twins
    from {{ source('bridge', 'channel_external_refs') }} as refs
    where
        refs.entity_type = 'BOOKING'
        and refs.external_ref_kind in ('BSTADMIN_BOOKING_ID', 'BALISNAP_BOOKING_ID')
    group by refs.entity_key
    having count(*) > 1
),

reviewed as (
    select distinct queue.source_pk as identity
    from {{ source('bridge', 'unmapped_queue') }} as queue
    where
        queue.queue_type = 'BOOKING_REVIEW'
        and queue.reason_code = 'MULTI_MATCH'
        and queue.source_table = 'booking_identity'
),

gone as (
    select distinct queue.source_pk as identity
    from {{ source('bridge', 'unmapped_queue') }} as queue
    where queue.source_table = 'booking_identity' and queue.reason_code = 'NO_MATCH'
),

queued as (
    select distinct queue.source_pk as id
    from {{ source('bridge', 'unmapped_queue') }} as queue
    where
        queue.reason_code = 'INVALID_SOURCE'
        and queue.source_system = 'bstadmin'
        and queue.source_table = 'bookings'
),

canonical as (
    select
        bookings.*,
        assignments.driver_id as board_driver_id,
        several.entity_key is not null as has_several,
        coalesce(several.are_twins, false) as has_twins,
        reviewed.identity is not null as is_reviewed,
        told.told,
        since.booking_key is not null as is_ingested
    from {{ ref('ops_bookings') }} as bookings
    left join {{ source('bridge', 'ops_assignment') }} as assignments
        on bookings.booking_key = assignments.booking_key and assignments.is_active
    left join several on bookings.booking_key = several.entity_key
    left join {{ source('phase2', 'parity_told') }} as told on bookings.booking_key = told.booking_key
    left join {{ source('phase2', 'told_since') }} as since on bookings.booking_key = since.booking_key
    left join reviewed on bookings.channel || ':' || bookings.reference = reviewed.identity
),

compared as (
    select
        coalesce(legacy.number, numbers.number)::text as id,
        canonical.booking_key,
        case
            when canonical.booking_key is null
                then jsonb_build_object(
                    'booking', jsonb_build_array(
                        'there', null,
                        case when {{ approved.format('booking:QUEUED') }} and queued.id is not null then 'QUEUED' end
                    )
                )
            when legacy.number is null
                then jsonb_build_object(
                    'booking', jsonb_build_array(
                        null, 'there',
                        case when {{ approved.format('booking:GONE') }} and gone.identity is not null then 'GONE' end
                    )
                )
            else {{ read_differences('legacy', 'canonical', approved) }}
        end as differences,
        canonical.booking_key is null as is_missing,
        legacy.number is null as is_surplus
    from legacy
    full join numbers on legacy.number = numbers.number
    left join canonical on numbers.entity_key = canonical.booking_key
    left join queued on legacy.id = queued.id
    left join gone on canonical.channel || ':' || canonical.reference = gone.identity
    -- a fence: the differences are computed once, and not each time that they are named below
    offset 0 -- noqa: AM09
)

select
    id,
    booking_key,
    case
        when differences is null then 'SAME'
        when not jsonb_path_exists(differences, '$.*[2] ? (@ == null)') then 'EXPLAINED'
        when is_missing then 'MISSING'
        when is_surplus then 'SURPLUS'
        else 'DIFFERENT'
    end as status,
    differences
from compared
