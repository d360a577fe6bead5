-- One round: what the bookings, keys and names that the round before added lead to (`round` is its number).

-- names that a booking had, has, or would be given
insert into phase2.touched_names (channel_code, external_ref, round)
select
    w.channel_code,
    w.external_booking_ref,
    current_setting('phase2.round')::integer + 1 as round
from dbt_intermediate.whole_booking_sources as w
inner join phase2.touched_bookings as t
    on
        w.source_system = t.source_system
        and w.booking_id = t.booking_id
        and t.round = current_setting('phase2.round')::integer
union
select
    'DIRECT' as channel_code,
    coalesce(b.external_ref, rulebook.made_up_ref('balisnap', b.booking_id)) as external_ref,
    current_setting('phase2.round')::integer + 1 as round
from dbt_staging.stg_balisnap__bookings as b
inner join phase2.touched_bookings as t
    on
        b.booking_id = t.booking_id
        and t.source_system = 'balisnap'
        and t.round = current_setting('phase2.round')::integer
union
select
    b.channel_code,
    coalesce(b.external_ref, rulebook.made_up_ref('bstadmin', b.booking_id)) as external_ref,
    current_setting('phase2.round')::integer + 1 as round
from dbt_staging.stg_bstadmin__bookings as b
inner join phase2.touched_bookings as t
    on
        b.booking_id = t.booking_id
        and t.source_system = 'bstadmin'
        and t.round = current_setting('phase2.round')::integer
on conflict do nothing;

-- a made-up name and the ones that stand in for it when somebody really has it
insert into phase2.touched_names (channel_code, external_ref, round)
select
    n.channel_code,
    forms.external_ref,
    current_setting('phase2.round')::integer + 1 as round
from phase2.touched_names as n
cross join lateral (select substring(n.external_ref from '^((BS|OPS)-[0-9]{1,18})(-BALISNAP|-BSTADMIN)?$') as bare) as b
cross join
    lateral (
        values
        (b.bare),
        (b.bare || case when b.bare like 'BS-%' then '-BALISNAP' else '-BSTADMIN' end)
    ) as forms (external_ref)
where
    n.round in (current_setting('phase2.round')::integer, current_setting('phase2.round')::integer + 1)
    and b.bare is not null
on conflict do nothing;

insert into phase2.touched_bookings (source_system, booking_id, round)
select distinct
    case when n.external_ref like 'BS-%' then 'balisnap' else 'bstadmin' end as source_system,
    substring(n.external_ref from '^(?:BS|OPS)-([0-9]{1,18})')::bigint as booking_id,
    current_setting('phase2.round')::integer + 1 as round
from phase2.touched_names as n
where
    n.round = current_setting('phase2.round')::integer
    and n.external_ref ~ '^(BS|OPS)-[0-9]{1,18}(-BALISNAP|-BSTADMIN)?$'
on conflict do nothing;

-- who had these names
insert into phase2.touched_bookings (source_system, booking_id, round)
select
    w.source_system,
    w.booking_id,
    current_setting('phase2.round')::integer + 1 as round
from dbt_intermediate.whole_booking_sources as w
inner join phase2.touched_names as n
    on
        w.external_booking_ref = n.external_ref
        and w.channel_code = n.channel_code
        and n.round = current_setting('phase2.round')::integer
on conflict do nothing;

-- the bridge's bookings of these names, and one whose key was made of such a name before it was renamed
insert into phase2.touched_keys (booking_key, round)
select
    c.booking_key,
    current_setting('phase2.round')::integer + 1 as round
from public.booking_core as c
inner join phase2.touched_names as n
    on
        c.channel_code = n.channel_code
        and c.external_booking_ref = n.external_ref
        and n.round = current_setting('phase2.round')::integer
union
select
    c.booking_key,
    current_setting('phase2.round')::integer + 1 as round
from public.booking_core as c
inner join (
    select rulebook.booking_key(n.channel_code, n.external_ref) as booking_key
    from phase2.touched_names as n
    where n.round = current_setting('phase2.round')::integer
) as made on c.booking_key = made.booking_key
on conflict do nothing;

-- the bridge's bookings of these source bookings: as they were linked, and as the bridge's refs say (on the channel
-- that they had: batch D leaves no ref of the sources' on another; on any, when it is not known)
insert into phase2.touched_keys (booking_key, round)
select
    w.booking_key,
    current_setting('phase2.round')::integer + 1 as round
from dbt_intermediate.whole_booking_candidates as w
inner join phase2.touched_bookings as t
    on
        w.source_system = t.source_system
        and w.booking_id = t.booking_id
        and t.round = current_setting('phase2.round')::integer
union
select
    e.entity_key,
    current_setting('phase2.round')::integer + 1 as round
from phase2.touched_bookings as t
left join dbt_intermediate.whole_booking_sources as w
    on t.source_system = w.source_system and t.booking_id = w.booking_id
inner join public.channel_registry as r on w.channel_code = r.channel_code or w.channel_code is null
inner join public.channel_external_refs as e
    on
        e.entity_type = 'BOOKING'
        and r.channel_code = e.channel_code
        and e.external_ref_kind
        = case t.source_system when 'balisnap' then 'BALISNAP_BOOKING_ID' else 'BSTADMIN_BOOKING_ID' end
        and e.external_ref = t.booking_id::text
where t.round = current_setting('phase2.round')::integer
on conflict do nothing;

-- the names and the source bookings of the bridge's bookings
insert into phase2.touched_names (channel_code, external_ref, round)
select
    c.channel_code,
    c.external_booking_ref,
    current_setting('phase2.round')::integer + 1 as round
from public.booking_core as c
inner join
    phase2.touched_keys as k
    on c.booking_key = k.booking_key and k.round = current_setting('phase2.round')::integer
on conflict do nothing;

insert into phase2.touched_bookings (source_system, booking_id, round)
select
    w.source_system,
    w.booking_id,
    current_setting('phase2.round')::integer + 1 as round
from dbt_intermediate.whole_booking_candidates as w
inner join
    phase2.touched_keys as k
    on w.booking_key = k.booking_key and k.round = current_setting('phase2.round')::integer
on conflict do nothing;

-- payments of these bookings as they were and as they are; whose ref any of them has or had
drop table if exists pg_temp.payments_of_round;

create temporary table payments_of_round as
select
    w.payment_key,
    w.payment_ref
from dbt_intermediate.whole_payments as w
inner join phase2.touched_bookings as t
    on
        w.booking_id = t.booking_id
        and t.source_system = 'balisnap'
        and t.round = current_setting('phase2.round')::integer
union
select
    rulebook.row_key('payment', 'balisnap', 'Payment', p.payment_id::text) as payment_key,
    rulebook.norm_text(p.payment_ref) as payment_ref
from landing_balisnap."Payment" as p
inner join phase2.touched_bookings as t
    on
        p.booking_id = t.booking_id
        and t.source_system = 'balisnap'
        and t.round = current_setting('phase2.round')::integer;

insert into phase2.touched_bookings (source_system, booking_id, round)
select distinct
    'balisnap' as source_system,
    w.booking_id,
    current_setting('phase2.round')::integer + 1 as round
from dbt_intermediate.whole_payments as w
inner join pg_temp.payments_of_round as p on w.payment_ref = p.payment_ref
on conflict do nothing;

insert into phase2.touched_keys (booking_key, round)
select
    e.booking_key,
    current_setting('phase2.round')::integer + 1 as round
from public.payment_event as e
inner join pg_temp.payments_of_round as p on e.payment_key = p.payment_key
union
select
    e.booking_key,
    current_setting('phase2.round')::integer + 1 as round
from public.payment_event as e
inner join pg_temp.payments_of_round as p on e.payment_ref = p.payment_ref
union
select
    b.booking_key,
    current_setting('phase2.round')::integer + 1 as round
from landing_bstadmin.booking_finances as f
inner join phase2.touched_bookings as t
    on
        f.booking_id = t.booking_id
        and t.source_system = 'bstadmin'
        and t.round = current_setting('phase2.round')::integer
inner join public.ops_finance_bridge as b
    on b.finance_bridge_key = rulebook.row_key('finance', 'bstadmin', 'booking_finances', f.booking_finance_id::text)
on conflict do nothing;

drop table pg_temp.payments_of_round;

-- what people resolved: the payment's or the finance's booking, and the one that it is linked to
drop table if exists pg_temp.resolutions;

create temporary table resolutions as
with decided as (
    select
        q.source_table,
        q.source_pk::bigint as pk,
        (q.payload #>> '{resolution,entity_key}')::uuid as booking_key
    from public.unmapped_queue as q
    where
        q.queue_type = 'PAYMENT_LINK'
        and q.source_pk ~ '^[0-9]{1,18}$'
        and q.payload #>> '{resolution,entity_key}'
        ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
)

select
    'balisnap' as source_system,
    p.booking_id::bigint as booking_id,
    d.booking_key
from decided as d
inner join landing_balisnap."Payment" as p on d.pk = p.payment_id and d.source_table = 'Payment'
union
select
    'bstadmin' as source_system,
    f.booking_id::bigint as booking_id,
    d.booking_key
from decided as d
inner join landing_bstadmin.booking_finances as f
    on d.pk = f.booking_finance_id and d.source_table = 'booking_finances';

insert into phase2.touched_keys (booking_key, round)
select
    r.booking_key,
    current_setting('phase2.round')::integer + 1 as round
from pg_temp.resolutions as r
inner join phase2.touched_bookings as t
    on
        r.source_system = t.source_system
        and r.booking_id = t.booking_id
        and t.round = current_setting('phase2.round')::integer
union
-- its booking is not in the bridge yet: it may be after this run
select
    r.booking_key,
    current_setting('phase2.round')::integer + 1 as round
from pg_temp.resolutions as r
left join public.booking_core as c on r.booking_key = c.booking_key
where c.booking_key is null
on conflict do nothing;

insert into phase2.touched_bookings (source_system, booking_id, round)
select
    r.source_system,
    r.booking_id,
    current_setting('phase2.round')::integer + 1 as round
from pg_temp.resolutions as r
inner join
    phase2.touched_keys as k
    on r.booking_key = k.booking_key and k.round = current_setting('phase2.round')::integer
on conflict do nothing;

drop table pg_temp.resolutions
