-- Writes of the back office through the core API (blueprint 6.9; docs/cutover-writes.md). Run at every start.
--
-- An intent is committed before anything else is written. Its two results, core and legacy, are recorded one by one, so
-- that whoever finds an intent that has not ended knows what is left to do.

create table if not exists phase2.write_intents (
    intent_id uuid not null,
    place bigint generated always as identity,
    idempotency_key text not null,
    request_hash text not null,
    booking_key uuid not null,
    action text not null,
    modules text[] not null,
    mode text not null,
    strict boolean not null,
    actor text not null,
    role text not null,
    base_version integer not null,
    before jsonb not null,
    target jsonb not null,
    legacy_ids integer[] not null,
    legacy_target jsonb not null,
    legacy_expected jsonb not null,
    core_status text not null,
    core_error text,
    core_at timestamptz,
    state_version integer,
    legacy_status text not null,
    legacy_error text,
    legacy_at timestamptz,
    legacy_found jsonb,
    legacy_written_at timestamptz,
    legacy_clean_until timestamptz,
    fallback boolean not null default false,
    answer jsonb,
    accepted_at timestamptz not null default now(),
    touched_at timestamptz not null default now(),
    constraint write_intents_pkey primary key (intent_id),
    constraint write_intents_key unique (idempotency_key),
    constraint write_intents_mode check (mode in ('DUAL', 'LEGACY')),
    constraint write_intents_core check (core_status in ('PENDING', 'DONE', 'BEHIND', 'REFUSED')),
    constraint write_intents_legacy check (legacy_status in ('PENDING', 'DONE', 'NONE', 'CONFLICT', 'REFUSED'))
);
alter table phase2.write_intents add column if not exists told_at timestamptz;
create index if not exists ix_write_intents_booking on phase2.write_intents (booking_key, place);
create index if not exists ix_write_intents_touched on phase2.write_intents (touched_at);
create index if not exists ix_write_intents_untold on phase2.write_intents (touched_at)
where core_status = 'REFUSED' and told_at is null;
create index if not exists ix_write_intents_open on phase2.write_intents (booking_key, place)
where core_status in ('PENDING', 'BEHIND') or legacy_status = 'PENDING';
comment on table phase2.write_intents is
'Every write of the back office, in the order of its booking: what it is to change, what became of it on each side.';
comment on column phase2.write_intents.mode is 'DUAL: core, then legacy. LEGACY: the flag was off for this actor.';
comment on column phase2.write_intents.core_status is
'BEHIND: legacy holds it and the core not yet (the flag was off, or the core write failed).';
comment on column phase2.write_intents.told_at is
'Of a refused write: when its writer got to know. Null: it was answered 202, and refused when nobody waited any more.';
comment on column phase2.write_intents.legacy_status is 'NONE: the booking is not in bstadmin.';
comment on column phase2.write_intents.legacy_expected is
'What bstadmin must hold for the write to go in; another value was written behind our back.';
comment on column phase2.write_intents.legacy_found is 'The legacy row as the write found it.';
comment on column phase2.write_intents.legacy_written_at is 'The updated_at that the write gave the legacy row.';
comment on column phase2.write_intents.legacy_clean_until is
'updated_at of the legacy row as we left it, when nobody else had changed the row since we last knew it.';

create or replace function phase2.core_values(booking_key uuid) returns jsonb
language sql stable
as $$
    select
        jsonb_build_object(
            'note', c.note,
            'meeting_point', t.meeting_point,
            'package_ref_type', c.package_ref_type,
            'package_ref_key', c.package_ref_key,
            'legacy_package_id', c.legacy_package_id,
            'ops_fulfillment_status', s.ops_fulfillment_status,
            'assigned_driver_id', s.assigned_driver_id,
            'assigned_partner_id', s.assigned_partner_id,
            'assigned_at', s.assigned_at,
            'channel_code', c.channel_code,
            'tour_date', c.tour_date,
            'currency_code', c.currency_code,
            'total_price', c.total_price,
            'customer_payment_status', c.customer_payment_status,
            'is_paid_flag', s.is_paid_flag,
            'paid_at', s.paid_at,
            'validated_at', f.validated_at,
            'is_locked', f.is_locked
        )
    from public.booking_core as c
    join public.ops_booking_state as s on s.booking_key = c.booking_key
    left join public.booking_contact as t on t.booking_key = c.booking_key
    left join public.ops_finance_bridge as f on f.booking_key = c.booking_key
    where c.booking_key = core_values.booking_key
$$;
comment on function phase2.core_values(uuid) is
'What the core holds of a booking that a write or the playbook may change.';

create or replace function phase2.write_view(booking_key uuid) returns jsonb
language sql stable
as $$
    select
        (
            select jsonb_object_agg(v.key, v.value)
            from jsonb_each(phase2.core_values(s.booking_key)) as v
            where
                v.key in (
                    'note', 'meeting_point', 'package_ref_type', 'package_ref_key', 'legacy_package_id',
                    'ops_fulfillment_status', 'assigned_driver_id', 'assigned_partner_id', 'assigned_at'
                )
        )
        || coalesce((
            select jsonb_object_agg(x.key, x.value order by i.place)
            from phase2.write_intents as i
            cross join lateral jsonb_each(i.target) as x
            where i.booking_key = s.booking_key and i.core_status in ('PENDING', 'BEHIND')
        ), '{}')
        || jsonb_build_object(
            'booking_key', s.booking_key,
            'state_version', s.state_version + (
                select count(*) from phase2.write_intents as i
                where i.booking_key = s.booking_key and i.core_status in ('PENDING', 'BEHIND')
            ),
            'frozen', phase2.is_frozen(s.booking_key)
        )
    from public.ops_booking_state as s
    where s.booking_key = write_view.booking_key
$$;
comment on function phase2.write_view(uuid) is
'What a booking holds for who writes to it: the core, and on top what was accepted and the core does not hold yet.
state_version counts that too, so that it goes up by one with each write, whichever side takes it first.';

create or replace function phase2.recomputed_status(booking_key uuid, stored text, driver_id integer, today date)
returns text
language sql stable
as $$
    select
        case
            -- what only balisnap has shows no trace of bstadmin (mapping 4.7)
            when
                c.channel_code = 'DIRECT' and driver_id is null and f.booking_key is null
                and s.updated_from_source is distinct from 'bstadmin'
                then rulebook.fulfilment_status_direct(
                    stored = 'CANCELLED', c.tour_date, today, c.customer_payment_status = 'PAID'
                )
            else rulebook.fulfilment_status(
                stored, (f.settlement_status = 'SETTLED')::integer::bigint, 0::bigint, f.validated_at, c.tour_date,
                today, driver_id, f.pattern_id::integer
            )
        end
    from public.booking_core as c
    join public.ops_booking_state as s on s.booking_key = c.booking_key
    left join public.ops_finance_bridge as f on f.booking_key = c.booking_key
    where c.booking_key = recomputed_status.booking_key
$$;
comment on function phase2.recomputed_status(uuid, text, integer, date) is
'The fulfilment status by the rulebook (mapping 4.7), from what the core holds, as an event recomputes it.';

create or replace function phase2.as_legacy(target jsonb) returns jsonb
language sql stable
as $$
    select coalesce(jsonb_object_agg(w.name, w.value), '{}')
    from (
        select 'note' as name, target -> 'note' as value where target ? 'note'
        union all
        select 'meeting_point', coalesce(nullif(target -> 'meeting_point', 'null'), '""') where target ? 'meeting_point'
        union all
        select 'package_id', target -> 'legacy_package_id' where target ? 'legacy_package_id'
        union all
        select 'assigned_driver_id', target -> 'assigned_driver_id' where target ? 'assigned_driver_id'
        union all
        select
            'assigned_at', to_jsonb(((target ->> 'assigned_at')::timestamptz at time zone 'UTC'))
        where target ? 'assigned_at'
        union all
        select 'status', target -> 'ops_fulfillment_status' where target ? 'ops_fulfillment_status'
        union all
        -- entered as local midnight
        select
            'tour_date', to_jsonb((target ->> 'tour_date')::timestamp at time zone 'Asia/Makassar' at time zone 'UTC')
        where target ? 'tour_date'
        union all
        select 'total_price', target -> 'total_price' where target ? 'total_price'
        union all
        select 'currency', target -> 'currency_code' where target ? 'currency_code'
    ) as w
$$;
comment on function phase2.as_legacy(jsonb) is 'Values of the core as the columns of bstadmin''s bookings hold them.';

create or replace function phase2.same_value(name text, legacy text, core text) returns boolean
language sql stable
as $$
    select
        case name
            when 'note' then
                rulebook.norm_lines(legacy) is not distinct from core
                -- notes of both sources in one (mapping 4.4)
                or coalesce(position('[bstadmin] ' || rulebook.norm_lines(legacy) in core) > 0, false)
            when 'meeting_point' then rulebook.norm_place(legacy) is not distinct from rulebook.norm_place(core)
            else legacy is not distinct from core
        end
$$;
comment on function phase2.same_value(text, text, text) is
'Whether a column of bstadmin''s bookings says what the core does, which holds it normalised.';

create or replace function phase2.legacy_known_until(booking_key uuid) returns timestamptz
language sql stable
as $$
    select greatest(
        (select t.source_updated_at from phase2.booking_source_times as t
        where t.booking_key = legacy_known_until.booking_key),
        (select max(i.legacy_clean_until) from phase2.write_intents as i
        where i.booking_key = legacy_known_until.booking_key)
    )
$$;
comment on function phase2.legacy_known_until(uuid) is
'Up to when we know of every change of the legacy row: the last backfill, or our own write if nobody came between.';

create or replace function phase2.legacy_expected(
    booking_key uuid, target jsonb, legacy jsonb, before jsonb default '{}', place bigint default null
) returns jsonb
language plpgsql stable
as $$
declare
    expected jsonb := '{}';
    ours jsonb := phase2.as_legacy(phase2.write_view(legacy_expected.booking_key) || before);
    is_known boolean := (legacy ->> 'updated_at')::timestamp at time zone 'UTC'
        <= phase2.legacy_known_until(legacy_expected.booking_key);
    written record;
    name text;
begin
    foreach name in array array['note', 'meeting_point', 'package_id', 'assigned_driver_id']
    loop
        continue when not target ? name;
        select i.legacy_status, i.legacy_target -> name as value into written
        from phase2.write_intents as i
        where
            i.booking_key = legacy_expected.booking_key
            and i.legacy_target ? name and i.legacy_status in ('PENDING', 'DONE')
            and (legacy_expected.place is null or i.place < legacy_expected.place)
        order by i.place desc
        limit 1;
        if written.legacy_status = 'PENDING' then
            expected := expected || jsonb_build_object(name, written.value);
        elsif legacy is not null then
            expected := expected || jsonb_build_object(name, case
                when
                    (written.legacy_status is null and is_known)
                    or legacy -> name = written.value
                    or phase2.same_value(name, legacy ->> name, ours ->> name)
                    then legacy -> name
                -- somebody wrote there behind our back: what we know of stands here, so that ours does not go in
                else coalesce(written.value, ours -> name)
            end);
        end if;
    end loop;
    return expected;
end
$$;
comment on function phase2.legacy_expected(uuid, jsonb, jsonb, jsonb, bigint) is
'Of the columns that a write is to change: what bstadmin must hold for it. Status has none, it is recomputed.
Of a write that is under way (its place) `before` is what the core held before it.';

create or replace function phase2.accept_write(
    asked jsonb, today date, out outcome text, out accepted_id uuid, out view jsonb
)
language plpgsql
as $$
#variable_conflict use_variable
declare
    key constant uuid := asked ->> 'booking_key';
    changes constant jsonb := asked -> 'changes';
    legacy constant jsonb := nullif(asked -> 'legacy', 'null');
    booking record;
    held record;
    target jsonb := '{}';
    legacy_target jsonb;
    ids integer[];
    refs text[];
begin
    select c.channel_code, c.external_booking_ref into booking from public.booking_core as c where c.booking_key = key;
    if booking.channel_code is not null then
        perform pg_advisory_xact_lock(phase2.booking_lock(booking.channel_code, booking.external_booking_ref));
    end if;
    select i.intent_id, i.request_hash into held
    from phase2.write_intents as i where i.idempotency_key = asked ->> 'idempotency_key';
    if held.intent_id is not null then
        outcome := case when held.request_hash = asked ->> 'request_hash' then 'SEEN' else 'KEY_REUSED' end;
        accepted_id := held.intent_id;
        return;
    end if;
    view := phase2.write_view(key);
    if view is null then
        outcome := 'MISSING';
        return;
    end if;
    if (view ->> 'frozen')::boolean then
        outcome := 'FROZEN';
        return;
    end if;
    if (view ->> 'state_version')::integer <> (asked ->> 'state_version')::integer then
        outcome := 'STALE'; -- of a recompute, which asks for no version, it is null: never
        return;
    end if;

    select coalesce(array_agg(r.external_ref::integer order by r.external_ref::integer), '{}') into ids
    from public.channel_external_refs as r
    where r.entity_type = 'BOOKING' and r.entity_key = key and r.external_ref_kind = 'BSTADMIN_BOOKING_ID';
    if legacy is not null then
        ids := array[(legacy ->> 'booking_id')::integer];
    end if;
    if cardinality(ids) = 0 and asked ->> 'mode' = 'LEGACY' then
        outcome := 'NOT_IN_LEGACY';
        return;
    end if;

    if changes ? 'note' then
        target := target || jsonb_build_object('note', rulebook.norm_lines(changes ->> 'note'));
    end if;
    if changes ? 'meeting_point' then
        target := target || jsonb_build_object('meeting_point', rulebook.norm_place(changes ->> 'meeting_point'));
    end if;
    if changes ? 'package_ref_type' then
        if not exists (
            select 1 from public.catalog_variant as v
            where
                changes ->> 'package_ref_type' = 'CATALOG_VARIANT'
                and v.variant_key::text = changes ->> 'package_ref_key'
            union all
            select 1 from public.catalog_product as p
            where
                changes ->> 'package_ref_type' = 'CATALOG_PRODUCT'
                and p.product_key::text = changes ->> 'package_ref_key'
        ) then
            outcome := 'NO_SUCH_PACKAGE';
            return;
        end if;
        select array_agg(r.external_ref order by r.external_ref::integer) into refs
        from public.channel_external_refs as r
        where
            r.entity_key = (changes ->> 'package_ref_key')::uuid and r.external_ref_kind = 'BSTADMIN_PACKAGE_ID'
            and 'CATALOG_' || r.entity_type = changes ->> 'package_ref_type';
        target := target || jsonb_build_object(
            'package_ref_type', changes ->> 'package_ref_type', 'package_ref_key', changes ->> 'package_ref_key'
        );
        -- several packages may lead there: the booking's own, if it is one of them
        if refs is not null and not coalesce(view ->> 'legacy_package_id' = any(refs), false) then
            target := target || jsonb_build_object('legacy_package_id', refs[1]::bigint);
        end if;
    end if;
    if changes ? 'assigned_driver_id' or changes ? 'assigned_partner_id' then
        target := target || jsonb_build_object(
            'assigned_driver_id', changes -> 'assigned_driver_id',
            'assigned_partner_id', changes -> 'assigned_partner_id',
            'assigned_at', case
                when coalesce(changes -> 'assigned_driver_id', 'null') <> 'null'
                    or coalesce(changes -> 'assigned_partner_id', 'null') <> 'null'
                    then date_trunc('milliseconds', now())
            end
        );
    end if;
    if asked ->> 'action' in ('assign', 'unassign', 'sync') then
        target := target || jsonb_build_object('ops_fulfillment_status', phase2.recomputed_status(
            key,
            -- who cancelled it there is not overruled by who does not know
            case
                when legacy ->> 'status' in ('CANCELLED', 'NO_SHOW') then legacy ->> 'status'
                else view ->> 'ops_fulfillment_status'
            end,
            ((view || target) ->> 'assigned_driver_id')::integer, today
        ));
    end if;
    legacy_target := phase2.as_legacy(target);
    accepted_id := (asked ->> 'intent_id')::uuid;
    insert into phase2.write_intents (
        intent_id, idempotency_key, request_hash, booking_key, action, modules, mode, strict, actor, role,
        base_version, before, target, legacy_ids, legacy_target, legacy_expected, core_status, legacy_status
    )
    select
        accepted_id, asked ->> 'idempotency_key', asked ->> 'request_hash', key, asked ->> 'action',
        array(select m.name from jsonb_array_elements_text(asked -> 'modules') as m (name)), asked ->> 'mode',
        (asked ->> 'strict')::boolean, asked ->> 'actor', asked ->> 'role', (view ->> 'state_version')::integer,
        (select jsonb_object_agg(b.key, b.value) from jsonb_each(view) as b where target ? b.key),
        target, ids, legacy_target, phase2.legacy_expected(key, legacy_target, legacy),
        case asked ->> 'mode' when 'DUAL' then 'PENDING' else 'BEHIND' end,
        case when cardinality(ids) = 0 or legacy_target = '{}' then 'NONE' else 'PENDING' end;
    outcome := 'ACCEPTED';
end
$$;
comment on function phase2.accept_write(jsonb, date) is
'Writes the intent, or says why not: SEEN (the same request has one), KEY_REUSED, MISSING, FROZEN, STALE, NOT_IN_LEGACY,
NO_SUCH_PACKAGE. Whoever is accepted has its place among the writes of the booking, and the next version.';

drop function if exists phase2.write_core(uuid);
create or replace function phase2.write_core(intent_id uuid, resolving boolean default false) returns text
language plpgsql
as $$
#variable_conflict use_column
declare
    i record;
    c record;
    source_at timestamptz;
    held_key uuid;
    driver integer;
begin
    select w.* into i from phase2.write_intents as w where w.intent_id = write_core.intent_id for update;
    if i.core_status not in ('PENDING', 'BEHIND') then
        return 'ALREADY';
    end if;
    select b.* into c from public.booking_core as b where b.booking_key = i.booking_key;
    if c.booking_key is null then
        return 'MISSING';
    end if;
    perform pg_advisory_xact_lock(phase2.booking_lock(c.channel_code, c.external_booking_ref));
    if phase2.backfill_is_writing() then
        return 'BUSY';
    end if;
    if phase2.is_frozen(i.booking_key) and not resolving then
        return 'FROZEN';
    end if;
    if exists (
        select 1 from phase2.write_intents as w
        where
            w.booking_key = i.booking_key and w.place < i.place and w.core_status in ('PENDING', 'BEHIND')
            and exists (select 1 from jsonb_object_keys(w.target) as k (name) where i.target ? k.name)
    ) then
        return 'WAITS';
    end if;
    select s.source_updated_at into source_at
    from phase2.booking_source_times as s where s.booking_key = i.booking_key;
    if i.core_status = 'BEHIND' and i.legacy_status = 'DONE' and i.legacy_written_at <= source_at then
        -- a backfill has brought it, and maybe what came after it; but no partner, for whom bstadmin has no place
        i.target := coalesce((
            select jsonb_object_agg(x.key, x.value)
            from public.ops_booking_state as s
            cross join lateral jsonb_each(i.target) as x
            where
                s.booking_key = i.booking_key
                and i.target ->> 'assigned_partner_id' is not null
                and s.assigned_driver_id is not distinct from (i.target ->> 'assigned_driver_id')::integer
                and x.key in ('assigned_driver_id', 'assigned_partner_id', 'assigned_at')
        ), '{}');
    end if;

    if i.target ?| array[
        'note', 'package_ref_type', 'legacy_package_id', 'ops_fulfillment_status', 'tour_date', 'total_price',
        'currency_code', 'customer_payment_status'
    ] then
        update public.booking_core as b
        set
            note = case when i.target ? 'note' then i.target ->> 'note' else b.note end,
            package_ref_type = coalesce(i.target ->> 'package_ref_type', b.package_ref_type),
            package_ref_key = case
                when i.target ? 'package_ref_key' then (i.target ->> 'package_ref_key')::uuid else b.package_ref_key
            end,
            legacy_package_id = case
                when i.target ? 'legacy_package_id' then (i.target ->> 'legacy_package_id')::bigint
                else b.legacy_package_id
            end,
            ops_fulfillment_status = coalesce(i.target ->> 'ops_fulfillment_status', b.ops_fulfillment_status),
            tour_date = coalesce((i.target ->> 'tour_date')::date, b.tour_date),
            total_price = coalesce((i.target ->> 'total_price')::numeric, b.total_price),
            currency_code = coalesce(i.target ->> 'currency_code', b.currency_code),
            customer_payment_status = coalesce(i.target ->> 'customer_payment_status', b.customer_payment_status),
            updated_at = now()
        where b.booking_key = i.booking_key;
    end if;
    if i.target ?| array['total_price', 'currency_code'] then
        -- the item that stands for a booking without any (mapping 4.9)
        update public.booking_item_snapshot as s
        set
            total_amount = u.total,
            currency_code = coalesce(i.target ->> 'currency_code', c.currency_code),
            adult_unit_price = u.price,
            child_unit_price = u.price,
            updated_at = now()
        from (
            select
                t.total,
                rulebook.synthetic_unit_price(t.total, c.number_of_adult, c.number_of_child) as price
            from (select coalesce((i.target ->> 'total_price')::numeric, c.total_price) as total) as t
        ) as u
        where s.booking_item_key = rulebook.synthetic_item_key(c.channel_code, c.external_booking_ref);
    end if;
    if i.target ? 'validated_at' or i.target ? 'is_locked' then
        update public.ops_finance_bridge as f
        set
            validated_at = case
                when i.target ? 'validated_at' then (i.target ->> 'validated_at')::timestamptz else f.validated_at
            end,
            is_locked = coalesce((i.target ->> 'is_locked')::boolean, f.is_locked),
            updated_at = now()
        where f.booking_key = i.booking_key;
    end if;
    if i.target ? 'meeting_point' then
        insert into public.booking_contact as t (
            booking_key, meeting_point, is_placeholder_name, is_placeholder_email, updated_from_source
        )
        values (i.booking_key, i.target ->> 'meeting_point', true, true, 'core-api')
        on conflict (booking_key) do update
            set
                meeting_point = excluded.meeting_point,
                updated_from_source = excluded.updated_from_source,
                updated_at = now();
    end if;
    if i.target ? 'assigned_driver_id' then
        driver := i.target ->> 'assigned_driver_id';
        -- a driver who comes back has the row that was closed, and so has a later backfill (mapping 4.11)
        held_key := case
            when driver is not null and cardinality(i.legacy_ids) > 0
                then rulebook.named_key(
                    'booking', 'bstadmin:bookings:' || i.legacy_ids[1] || ':assignment:' || driver
                )
            else i.intent_id
        end;
        update public.ops_assignment as a
        set is_active = false, unassigned_at = i.accepted_at, updated_at = now()
        where a.booking_key = i.booking_key and a.is_active and a.assignment_key <> held_key;
        if i.target ->> 'assigned_at' is not null then
            insert into public.ops_assignment as a (
                assignment_key, booking_key, driver_id, partner_id, assignment_source, assigned_at
            )
            values (
                held_key, i.booking_key, driver, (i.target ->> 'assigned_partner_id')::integer, 'CORE_API',
                (i.target ->> 'assigned_at')::timestamptz
            )
            on conflict (assignment_key) do update
                set
                    partner_id = excluded.partner_id,
                    assignment_source = excluded.assignment_source,
                    assigned_at = excluded.assigned_at,
                    unassigned_at = null,
                    is_active = true,
                    updated_at = now();
        end if;
    end if;
    update public.ops_booking_state as s
    set
        ops_fulfillment_status = coalesce(i.target ->> 'ops_fulfillment_status', s.ops_fulfillment_status),
        assigned_driver_id = case when i.target ? 'assigned_driver_id' then driver else s.assigned_driver_id end,
        assigned_partner_id = case
            when i.target ? 'assigned_partner_id' then (i.target ->> 'assigned_partner_id')::integer
            else s.assigned_partner_id
        end,
        assigned_at = case
            when i.target ? 'assigned_at' then (i.target ->> 'assigned_at')::timestamptz else s.assigned_at
        end,
        is_paid_flag = coalesce((i.target ->> 'is_paid_flag')::boolean, s.is_paid_flag),
        paid_at = case when i.target ? 'paid_at' then (i.target ->> 'paid_at')::timestamptz else s.paid_at end,
        -- updated_from_source stays: it tells an event that bstadmin has the booking
        state_version = s.state_version + 1,
        updated_at = now()
    where s.booking_key = i.booking_key;

    -- Neither an older event nor an older backfill takes it back (mapping 4.13).
    insert into phase2.booking_freshness as f (booking_key, last_core_write_at)
    values (i.booking_key, i.accepted_at)
    on conflict (booking_key) do update
        set last_core_write_at = greatest(f.last_core_write_at, excluded.last_core_write_at);
    if i.target ?| array['note', 'meeting_point'] then
        insert into phase2.booking_event_times as t (
            booking_key, made_here, source_at, first_event_at, pickup_stands_in, note_at, meeting_point_at
        )
        select
            i.booking_key, false, source_at, 'infinity',
            coalesce(c.channel_code = 'DIRECT' and p.pickup_location = p.meeting_point, false),
            case when i.target ? 'note' then i.accepted_at end,
            case when i.target ? 'meeting_point' then i.accepted_at end
        from (select 1) as one
        left join public.booking_contact as p on p.booking_key = i.booking_key
        on conflict (booking_key) do update
            set
                note_at = greatest(t.note_at, excluded.note_at),
                meeting_point_at = greatest(t.meeting_point_at, excluded.meeting_point_at);
    end if;
    update phase2.write_intents as w
    set
        core_status = 'DONE', core_at = clock_timestamp(), core_error = null, touched_at = clock_timestamp(),
        state_version = (select s.state_version from public.ops_booking_state as s where s.booking_key = i.booking_key)
    where w.intent_id = write_core.intent_id;
    return 'DONE';
end
$$;
comment on function phase2.write_core(uuid, boolean) is
'Writes an intent to the canonical tables, once: DONE, or ALREADY. BUSY (a backfill writes), MISSING
(batch D was rolled back), FROZEN and WAITS (for a write before it) change nothing. `resolving`: what ends a conflict is written to a frozen booking too.';

create or replace function phase2.record_legacy(
    intent_id uuid, result text, seen jsonb, written_at timestamptz, error text
) returns text
language plpgsql
as $$
#variable_conflict use_column
declare
    i record;
    is_clean boolean;
    ended text := result;
begin
    select w.* into i from phase2.write_intents as w where w.intent_id = record_legacy.intent_id for update;
    if i.legacy_status <> 'PENDING' then
        return 'ALREADY';
    end if;
    if result = 'CONFLICT' and i.core_status <> 'DONE' then
        ended := 'REFUSED'; -- neither side has it, and neither gets it
    end if;
    if result = 'CONFLICT' and i.core_status = 'DONE' then
        perform phase2.note_conflict(i.booking_key, d.rule, jsonb_agg(d.said), 'write', i.intent_id)
        from (
            select
                phase2.rule_of(x.key, i.accepted_at, (seen ->> 'updated_at')::timestamp at time zone 'UTC') as rule,
                jsonb_build_object('field', x.key, 'core', x.value, 'legacy', seen -> x.key) as said
            from jsonb_each(i.legacy_target) as x
            where
                x.key in ('note', 'meeting_point', 'package_id', 'assigned_driver_id')
                and seen -> x.key is distinct from x.value
        ) as d
        group by d.rule;
    end if;
    is_clean := coalesce(
        (seen ->> 'updated_at')::timestamp at time zone 'UTC' <= phase2.legacy_known_until(i.booking_key), false
    );
    update phase2.write_intents as w
    set
        legacy_status = ended,
        core_status = case when ended = 'REFUSED' then 'REFUSED' else w.core_status end,
        -- who was refused may ask again with the same key
        idempotency_key = case
            when ended = 'REFUSED' then w.idempotency_key || ':' || w.intent_id else w.idempotency_key
        end,
        legacy_at = clock_timestamp(),
        legacy_found = seen,
        legacy_error = error,
        legacy_written_at = written_at,
        legacy_clean_until = case when is_clean then written_at end,
        touched_at = clock_timestamp()
    where w.intent_id = record_legacy.intent_id;
    if ended = 'DONE' and is_clean then
        -- nobody else's change is in that row: no backfill has to take anything from it
        update phase2.booking_freshness as f
        set last_core_write_at = greatest(f.last_core_write_at, written_at + interval '1 millisecond')
        where f.booking_key = i.booking_key and i.core_status = 'DONE';
    end if;
    return ended;
end
$$;
comment on function phase2.record_legacy(uuid, text, jsonb, timestamptz, text) is
'Records what became of an intent on the legacy side, once. A conflict after the core has it opens one of the playbook;
before, the write is refused as a whole.';

create or replace function phase2.refuse_write(intent_id uuid, error text) returns void
language sql
as $$
    update phase2.write_intents as w
    set
        core_status = 'REFUSED', core_error = error, touched_at = clock_timestamp(),
        legacy_status = case w.legacy_status when 'PENDING' then 'REFUSED' else w.legacy_status end,
        idempotency_key = w.idempotency_key || ':' || w.intent_id
    where w.intent_id = refuse_write.intent_id and w.core_status = 'PENDING'
$$;
comment on function phase2.refuse_write(uuid, text) is
'Ends an intent of which nothing was written; the same request may come again with its key.';
