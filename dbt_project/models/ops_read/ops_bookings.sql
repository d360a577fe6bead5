-- What the back office works with: every booking that bstadmin holds, and those of the other channels that only an
-- event has told of so far. A booking that balisnap alone holds is no page of the back office's, as before the cutover.
select
    coalesce(numbers.external_ref::bigint::text, cores.booking_key::text) as id,
    cores.booking_key,
    numbers.external_ref::bigint as ops_id,
    cores.channel_code::text as channel,
    cores.external_booking_ref::text as reference,
    cores.booking_created_at as created_at,
    cores.booking_date as booked_on,
    cores.tour_date,
    to_char(cores.tour_time, 'HH24:MI') as tour_time,
    contacts.main_name::text as customer_name,
    contacts.main_email::text as customer_email,
    contacts.phone::text as customer_phone,
    contacts.pickup_location,
    contacts.meeting_point,
    cores.number_of_adult as adults,
    cores.number_of_child as children,
    cores.currency_code::text as currency,
    cores.total_price,
    cores.ops_fulfillment_status::text as status,
    states.is_paid_flag as is_paid,
    states.paid_at,
    cores.legacy_package_id as package_id,
    states.assigned_driver_id as driver_id,
    states.assigned_at,
    cores.note,
    finances.booking_finance_id as finance_id,
    finances.pattern_id,
    finances.validated_at,
    finances.is_locked,
    finances.settlement_status::text as settlement,
    states.state_version
from {{ source('bridge', 'booking_core') }} as cores
-- joins and no common table expressions: the planner looks for a page's rows through this view, in the page's order
left join {{ source('bridge', 'channel_external_refs') }} as numbers
    on
        cores.booking_key = numbers.entity_key
        and numbers.entity_type = 'BOOKING'
        and numbers.external_ref_kind = 'BSTADMIN_BOOKING_ID'
        and numbers.external_ref ~ '^[0-9]{1,10}$'
left join {{ source('bridge', 'booking_contact') }} as contacts on cores.booking_key = contacts.booking_key
left join {{ source('bridge', 'ops_booking_state') }} as states on cores.booking_key = states.booking_key
left join {{ source('bridge', 'ops_finance_bridge') }} as finances on cores.booking_key = finances.booking_key
where
    (numbers.external_ref::bigint is not null or cores.channel_code <> 'DIRECT')
    -- bookings that were merged have several numbers: the page shows the lowest
    and not exists (
        select 1 from {{ source('bridge', 'channel_external_refs') }} as others
        where
            others.entity_key = cores.booking_key
            and others.entity_type = 'BOOKING'
            and others.external_ref_kind = 'BSTADMIN_BOOKING_ID'
            and others.external_ref ~ '^[0-9]{1,10}$'
            and others.external_ref::bigint < numbers.external_ref::bigint
    )
