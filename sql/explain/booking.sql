-- The bridge's rows of one booking (phase2.explain_key): table, key, row; in the order in which they are told.
with asked as materialized (
    select current_setting('phase2.explain_key')::uuid as key
),

found as (
    select
        1 as place,
        'booking_core' as table_name,
        t.booking_key as key,
        to_jsonb(t) as said
    from public.booking_core as t
    inner join asked on t.booking_key = asked.key
    union all
    select
        2 as place,
        'booking_contact' as table_name,
        t.booking_key as key,
        to_jsonb(t) as said
    from public.booking_contact as t
    inner join asked on t.booking_key = asked.key
    union all
    select
        3 as place,
        'booking_party' as table_name,
        t.booking_key as key,
        to_jsonb(t) as said
    from public.booking_party as t
    inner join asked on t.booking_key = asked.key
    union all
    select
        4 as place,
        'booking_item_snapshot' as table_name,
        t.booking_item_key as key,
        to_jsonb(t) as said
    from public.booking_item_snapshot as t
    inner join asked on t.booking_key = asked.key
    union all
    select
        5 as place,
        'payment_event' as table_name,
        t.payment_key as key,
        to_jsonb(t) as said
    from public.payment_event as t
    inner join asked on t.booking_key = asked.key
    union all
    select
        6 as place,
        'ops_booking_state' as table_name,
        t.booking_key as key,
        to_jsonb(t) as said
    from public.ops_booking_state as t
    inner join asked on t.booking_key = asked.key
    union all
    select
        7 as place,
        'ops_assignment' as table_name,
        t.assignment_key as key,
        to_jsonb(t) as said
    from public.ops_assignment as t
    inner join asked on t.booking_key = asked.key
    union all
    select
        8 as place,
        'ops_finance_bridge' as table_name,
        t.finance_bridge_key as key,
        to_jsonb(t) as said
    from public.ops_finance_bridge as t
    inner join asked on t.booking_key = asked.key
    union all
    select
        9 as place,
        'channel_external_refs' as table_name,
        t.external_ref_key as key,
        to_jsonb(t) as said
    from public.channel_external_refs as t
    inner join asked on t.entity_key = asked.key
    where t.entity_type = 'BOOKING'
)

select
    table_name,
    key,
    said
from found
order by place, key
