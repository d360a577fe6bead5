-- Conflicts of the dual write and the playbook that settles them (blueprint 6.10; docs/cutover-writes.md). Run at every
-- start. A rule never guesses: what it would change is `phase2.plan_conflict`, asked by who looks and by who applies.

create table if not exists phase2.conflicts (
    conflict_id uuid not null,
    booking_key uuid not null,
    rule text not null,
    rule_version integer not null,
    module text not null,
    severity text not null,
    freezes boolean not null,
    status text not null default 'OPEN',
    fields jsonb not null,
    found_by text not null,
    intent_id uuid,
    core_write_at timestamptz,
    detected_at timestamptz not null default now(),
    due_at timestamptz not null,
    checked_at timestamptz not null default now(),
    escalated_at timestamptz,
    before jsonb,
    after jsonb,
    ended_at timestamptz,
    ended_by text,
    reason text,
    constraint conflicts_pkey primary key (conflict_id),
    constraint conflicts_severity check (severity in ('high', 'medium')),
    constraint conflicts_status check (status in ('OPEN', 'APPLIED', 'RESOLVED', 'GONE'))
);
create unique index if not exists ux_conflicts_open on phase2.conflicts (booking_key, rule) where status = 'OPEN';
create index if not exists ix_conflicts_frozen on phase2.conflicts (booking_key) where freezes and status = 'OPEN';
comment on table phase2.conflicts is
'Where core and legacy hold different things and a rule of the playbook, or a person, has to say which stands.';
comment on column phase2.conflicts.fields is 'A list of {field, core, legacy}, as last compared.';
comment on column phase2.conflicts.core_write_at is
'Of a frozen booking its last core write; meanwhile it is in 9999, and a backfill takes nothing over (mapping 4.13).';
comment on column phase2.conflicts.before is 'Both sides before the rule was applied: what undo restores.';

create table if not exists phase2.playbook_rules (
    rule text not null,
    version integer not null,
    module text not null,
    winner text not null,
    condition text not null,
    action text not null,
    severity text not null,
    sla interval not null,
    freezes boolean not null,
    constraint playbook_rules_pkey primary key (rule, version)
);
comment on table phase2.playbook_rules is
'The conflict playbook (blueprint 6.10), version by version; the highest version of a rule is in force.';
insert into phase2.playbook_rules (rule, version, module, winner, condition, action, severity, sla, freezes)
values
(
    'booking_header', 1, 'booking_core', 'core-api', 'tour_date, total_price or channel_code differ',
    'REVIEW_REQUIRED: freeze the booking until a person resolves it', 'high', interval '30 minutes', true
),
(
    'assignment', 1, 'ops_assignment', 'core-api', 'driver differs, changed on both sides within 5 minutes',
    'the core''s stands and is written to legacy, whose value is kept for audit', 'medium', interval '4 hours', false
),
(
    'ops_state', 1, 'ops_booking_state', 'core-api', 'status differs from the recomputed one',
    'recompute, write to both sides, audit the override', 'medium', interval '4 hours', false
),
(
    'finance', 1, 'ops_finance_bridge', 'bstadmin', 'validated_at or is_locked differ',
    'bstadmin''s value is taken, a reconciliation ticket opened', 'medium', interval '4 hours', false
),
(
    'payment', 1, 'payment_event', 'balisnap for DIRECT', 'payments that came in another order than they happened',
    'events are kept, ordered by their time, and the payment status is told anew', 'high', interval '30 minutes', false
),
(
    'choice', 1, 'booking', 'a person', 'any other written field differs',
    'a person says which side stands', 'medium', interval '4 hours', false
),
(
    'booking_header', 2, 'booking_core', 'core-api', 'tour_date, total_price, its currency or channel_code differ',
    'REVIEW_REQUIRED: freeze the booking until a person resolves it', 'high', interval '30 minutes', true
)
on conflict do nothing;

create or replace function phase2.is_frozen(booking_key uuid) returns boolean
language sql stable
as $$
    select exists (
        select 1 from phase2.conflicts as c
        where c.booking_key = is_frozen.booking_key and c.freezes and c.status = 'OPEN'
    )
$$;
comment on function phase2.is_frozen(uuid) is
'Whether a conflict holds this booking: nobody writes to it until a person has resolved that.';

create or replace function phase2.hold_backfill(conflict_id uuid) returns void
language plpgsql
as $$
#variable_conflict use_column
declare
    c phase2.conflicts;
    written_at timestamptz;
begin
    select k.* into c from phase2.conflicts as k where k.conflict_id = hold_backfill.conflict_id;
    if not c.freezes then
        return;
    end if;
    select f.last_core_write_at into written_at
    from phase2.booking_freshness as f where f.booking_key = c.booking_key;
    if written_at >= timestamptz '9999-01-01 00:00:00+00' then
        return;
    end if;
    update phase2.conflicts as k set core_write_at = written_at where k.conflict_id = c.conflict_id;
    insert into phase2.booking_freshness as f (booking_key, last_core_write_at)
    values (c.booking_key, timestamptz '9999-01-01 00:00:00+00')
    on conflict (booking_key) do update set last_core_write_at = excluded.last_core_write_at;
end
$$;
comment on function phase2.hold_backfill(uuid) is
'While a booking is frozen nothing of bstadmin is newer than the core: what a backfill would take over is in dispute.';

create or replace function phase2.note_conflict(
    booking_key uuid, rule text, fields jsonb, found_by text, intent_id uuid
) returns uuid
language plpgsql
as $$
#variable_conflict use_column
declare
    told uuid;
begin
    insert into phase2.conflicts as c (
        conflict_id, booking_key, rule, rule_version, module, severity, freezes, fields, found_by, intent_id, due_at
    )
    select
        phase2.uuid7(), note_conflict.booking_key, r.rule, r.version, r.module, r.severity, r.freezes,
        note_conflict.fields, note_conflict.found_by, note_conflict.intent_id, now() + r.sla
    from phase2.playbook_rules as r
    where r.rule = note_conflict.rule
    order by r.version desc
    limit 1
    on conflict (booking_key, rule) where status = 'OPEN' do update
        set fields = (
            select jsonb_agg(f.value order by f.value ->> 'field')
            from (
                select n.value from jsonb_array_elements(excluded.fields) as n (value)
                union all
                select o.value from jsonb_array_elements(c.fields) as o (value)
                where not exists (
                    select 1 from jsonb_array_elements(excluded.fields) as n (value)
                    where n.value ->> 'field' = o.value ->> 'field'
                )
            ) as f
        ),
        checked_at = now()
    returning c.conflict_id into told;
    perform phase2.hold_backfill(told);
    -- REVIEW_REQUIRED: a person finds it where all reviews are
    insert into public.unmapped_queue as q (
        queue_key, queue_type, channel_code, source_system, source_table, source_pk, reason_code, reason_detail, payload
    )
    select
        rulebook.queue_key('BOOKING_REVIEW', 'core-api', 'conflicts', told::text, 'MULTI_MATCH'), 'BOOKING_REVIEW',
        b.channel_code, 'core-api', 'conflicts', told::text, 'MULTI_MATCH', 'core and bstadmin differ; frozen',
        jsonb_build_object('booking_key', b.booking_key, 'fields', c.fields)
    from phase2.conflicts as c
    join public.booking_core as b on b.booking_key = c.booking_key
    where c.conflict_id = told and c.freezes
    on conflict (queue_key) do nothing;
    return told;
end
$$;
comment on function phase2.note_conflict(uuid, text, jsonb, text, uuid) is
'Opens a conflict under the rule''s version in force, or adds to the open one; its id. Its clock is that of the first.';

create or replace function phase2.rule_of(field text, core_at timestamptz, legacy_at timestamptz) returns text
language sql immutable
as $$
    select
        case
            when field in ('tour_date', 'total_price', 'currency_code', 'channel_code') then 'booking_header'
            when field = 'ops_fulfillment_status' then 'ops_state'
            when field in ('validated_at', 'is_locked') then 'finance'
            when field = 'customer_payment_status' then 'payment'
            when
                field = 'assigned_driver_id'
                and core_at - legacy_at between interval '-5 minutes' and interval '5 minutes'
                then 'assignment'
            else 'choice'
        end
$$;
comment on function phase2.rule_of(text, timestamptz, timestamptz) is
'Which rule of the playbook a difference in this field falls under, changed on the two sides at these times.';


create table if not exists phase2.tickets (
    ticket_id uuid not null,
    conflict_id uuid not null,
    severity text not null,
    title text not null,
    opened_at timestamptz not null default now(),
    closed_at timestamptz,
    closed_by text,
    reason text,
    constraint tickets_pkey primary key (ticket_id),
    constraint tickets_conflict unique (conflict_id)
);
comment on table phase2.tickets is 'What a rule of the playbook leaves for a person to look into.';

create table if not exists phase2.write_checks (
    check_id uuid not null,
    window_from timestamptz not null,
    window_to timestamptz not null,
    checked integer not null,
    mismatched integer not null,
    detail jsonb not null,
    checked_at timestamptz not null default now(),
    constraint write_checks_pkey primary key (check_id)
);
comment on table phase2.write_checks is
'Reconciliations of both sides, one a row: bookings written in the window, and how many of them differ (gate H-01).';

create or replace function phase2.payment_told(booking_key uuid) returns jsonb
language sql stable
as $$
    select
        case when p.out_of_order and p.told <> c.customer_payment_status then jsonb_build_object(
            'customer_payment_status', p.told, 'is_paid_flag', p.told = 'PAID',
            'paid_at', case when p.told = 'PAID' then p.first_capture_at end
        ) end
    from public.booking_core as c
    cross join lateral (
        select
            case
                when
                    count(*) filter (where e.payment_status_v2 = 'REFUNDED') > 0
                    and (
                        count(*) filter (where e.is_capture) = 0
                        or (
                            max(e.payment_time) filter (where e.is_capture)
                            <= max(e.payment_time) filter (where e.payment_status_v2 = 'REFUNDED')
                            and sum(abs(e.amount)) filter (where e.payment_status_v2 = 'REFUNDED')
                            >= sum(e.amount) filter (where e.is_capture)
                        )
                    )
                    then 'REFUNDED'
                when count(*) filter (where e.is_capture) > 0 then 'PAID'
                when count(*) filter (where e.payment_status_v2 = 'PENDING_PAYMENT') > 0 then 'PENDING_PAYMENT'
                else 'FAILED'
            end as told,
            min(e.payment_time) filter (where e.is_capture) as first_capture_at,
            bool_or(e.payment_time < e.latest_before) as out_of_order
        from (
            select
                x.payment_status_v2, x.payment_time, x.amount,
                x.payment_status_v2 in ('PAID', 'PARTIALLY_REFUNDED') as is_capture,
                max(x.payment_time) over (
                    order by x.created_at range between unbounded preceding and interval '1 microsecond' preceding
                ) as latest_before
            from public.payment_event as x
            where x.booking_key = c.booking_key
        ) as e
        having count(*) > 0
    ) as p
    where c.booking_key = payment_told.booking_key and c.channel_code = 'DIRECT'
$$;
comment on function phase2.payment_told(uuid) is
'What the payments of a DIRECT booking say in the order of their own times (mapping 5.2), where they came in another one
and the booking says something else; else null.';

create or replace function phase2.compare_sides(booking_key uuid, legacy jsonb, today date, settle interval)
returns table (rule text, field text, core jsonb, theirs jsonb)
language plpgsql stable
as $$
#variable_conflict use_variable
declare
    held jsonb := phase2.core_values(booking_key) || phase2.write_view(booking_key);
    ours jsonb := phase2.as_legacy(held);
    legacy_at timestamptz := (legacy ->> 'updated_at')::timestamp at time zone 'UTC';
    event_at timestamptz;
    source_at timestamptz;
    is_known boolean := legacy_at <= phase2.legacy_known_until(booking_key);
    written record;
    recomputed text;
    name text;
    is_alone constant boolean := 1 = (
        select count(*) from public.channel_external_refs as r
        where
            r.entity_type = 'BOOKING' and r.entity_key = compare_sides.booking_key
            and r.external_ref_kind in ('BSTADMIN_BOOKING_ID', 'BALISNAP_BOOKING_ID')
    );
begin
    if legacy = '{}' then
        if exists (
            select 1 from public.channel_external_refs as r
            where
                r.entity_type = 'BOOKING' and r.entity_key = compare_sides.booking_key
                and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'
        ) then -- bstadmin has deleted it
            return query select 'choice', 'booking', '"there"'::jsonb, null::jsonb;
        else -- bstadmin never had it
            return query
            select 'payment', 'customer_payment_status', held -> 'customer_payment_status', p.told
            from (select phase2.payment_told(booking_key) as told) as p
            where p.told is not null;
        end if;
        return;
    end if;
    foreach name in array array['note', 'meeting_point', 'package_id', 'assigned_driver_id']
    loop
        select i.legacy_status, i.accepted_at into written
        from phase2.write_intents as i
        where
            i.booking_key = compare_sides.booking_key
            and i.legacy_target ? name and i.legacy_status in ('PENDING', 'DONE', 'CONFLICT')
        order by i.place desc
        limit 1;
        continue when
            written.legacy_status = 'PENDING'
            or (written.legacy_status is null and is_known)
            or phase2.same_value(name, legacy ->> name, ours ->> name);
        rule := phase2.rule_of(name, written.accepted_at, legacy_at);
        field := name;
        core := ours -> name;
        theirs := legacy -> name;
        return next;
    end loop;

    -- Of the header the core's may be another on purpose, as long as nobody has changed either since (mapping 4.3).
    select f.last_event_time, t.source_updated_at into event_at, source_at
    from (select booking_key as key) as k
    left join phase2.booking_freshness as f on f.booking_key = k.key
    left join phase2.booking_source_times as t on t.booking_key = k.key;
    if
        (not is_known or event_at > coalesce(source_at, '-infinity'))
        and greatest(legacy_at, (select c.updated_at from public.booking_core as c
            where c.booking_key = compare_sides.booking_key)) < now() - settle
    then
        return query
        select 'booking_header', d.field, d.core, d.theirs
        from (
            values
            (
                'tour_date', held -> 'tour_date',
                to_jsonb(rulebook.bali_date((legacy ->> 'tour_date')::timestamp at time zone 'UTC'))
            ),
            (
                'total_price', held -> 'total_price',
                case
                    when is_alone or rulebook.norm_currency(legacy ->> 'currency') = held ->> 'currency_code'
                        then to_jsonb(greatest(rulebook.norm_money((legacy ->> 'total_price')::numeric), 0))
                    else held -> 'total_price'
                end
            ),
            -- of a booking of two sources the other one's may stand
            (
                'currency_code', held -> 'currency_code',
                case
                    when is_alone then to_jsonb(rulebook.norm_currency(legacy ->> 'currency'))
                    else held -> 'currency_code'
                end
            ),
            ('channel_code', held -> 'channel_code', to_jsonb(rulebook.booking_channel(legacy ->> 'source')))
        ) as d (field, core, theirs)
        where
            d.core is distinct from d.theirs
            -- the same number in another currency is another total
            or (
                d.field = 'total_price' and is_alone
                and rulebook.norm_currency(legacy ->> 'currency') <> held ->> 'currency_code'
            );
    end if;

    -- bstadmin owns the fulfilment, but what the core knows as cancelled stays so.
    recomputed := rulebook.fulfilment_status(
        case
            when held ->> 'ops_fulfillment_status' in ('CANCELLED', 'NO_SHOW') then held ->> 'ops_fulfillment_status'
            else legacy ->> 'status'
        end,
        (legacy ->> 'finance_items')::bigint, (legacy ->> 'unpaid_items')::bigint,
        (legacy ->> 'validated_at')::timestamp at time zone 'UTC', (held ->> 'tour_date')::date, today,
        (held ->> 'assigned_driver_id')::integer, (legacy ->> 'pattern_id')::integer
    );
    select i.legacy_status into written
    from phase2.write_intents as i
    where
        i.booking_key = compare_sides.booking_key
        and i.legacy_target ? 'status' and i.legacy_status in ('PENDING', 'DONE')
    order by i.place desc
    limit 1;
    if
        written.legacy_status is distinct from 'PENDING'
        and (
            held ->> 'ops_fulfillment_status' <> recomputed
            or (written.legacy_status = 'DONE' and legacy ->> 'status' <> recomputed)
        )
    then
        rule := 'ops_state';
        field := 'ops_fulfillment_status';
        core := jsonb_build_object('held', held -> 'ops_fulfillment_status', 'recomputed', recomputed);
        theirs := legacy -> 'status';
        return next;
    end if;

    return query
    select 'finance', d.field, d.core, d.theirs
    from (
        values
        (
            'validated_at', held -> 'validated_at',
            coalesce(to_jsonb((legacy ->> 'validated_at')::timestamp at time zone 'UTC'), 'null')
        ),
        ('is_locked', held -> 'is_locked', legacy -> 'is_locked')
    ) as d (field, core, theirs)
    where
        d.core is distinct from d.theirs
        and exists (select 1 from public.ops_finance_bridge as f where f.booking_key = compare_sides.booking_key);

    return query
    select 'payment', 'customer_payment_status', held -> 'customer_payment_status', p.told
    from (select phase2.payment_told(booking_key) as told) as p
    where p.told is not null;
end
$$;
comment on function phase2.compare_sides(uuid, jsonb, date, interval) is
'Where the core and a row of bstadmin differ, field by field, under the rule of the playbook that it falls under. What
a backfill has taken over as it is differs on purpose; what is still on its way does not count.';

create or replace function phase2.plan_conflict(
    conflict_id uuid, legacy jsonb, keep text, today date, settle interval,
    out is_stale boolean, out core_target jsonb, out legacy_target jsonb
)
language plpgsql stable
as $$
#variable_conflict use_variable
declare
    c phase2.conflicts;
    held jsonb;
    named text[];
    found_now jsonb;
    taken jsonb;
begin
    select k.* into c from phase2.conflicts as k where k.conflict_id = plan_conflict.conflict_id;
    held := phase2.core_values(c.booking_key) || phase2.write_view(c.booking_key);
    select array_agg(f.value ->> 'field') into named from jsonb_array_elements(c.fields) as f;
    -- stale: the same fields, compared now, are not what was compared then
    select coalesce(jsonb_object_agg(d.field, jsonb_build_array(d.core, d.theirs)), '{}') into found_now
    from phase2.compare_sides(c.booking_key, legacy, today, settle) as d
    where d.field = any(named);
    is_stale := found_now <> (
        select jsonb_object_agg(f.value ->> 'field', jsonb_build_array(f.value -> 'core', f.value -> 'legacy'))
        from jsonb_array_elements(c.fields) as f
    );
    core_target := '{}';
    legacy_target := '{}';
    if legacy = '{}' and c.rule <> 'payment' then
        is_stale := false; -- bstadmin has nothing to say any more, and gets nothing
        return;
    end if;
    if c.rule = 'ops_state' and keep is null then
        core_target := jsonb_build_object(
            'ops_fulfillment_status', found_now #> '{ops_fulfillment_status,0,recomputed}'
        );
        legacy_target := phase2.as_legacy(core_target);
    elsif c.rule = 'payment' and keep is null then
        core_target := coalesce(found_now #> '{customer_payment_status,1}', '{}');
    elsif c.rule = 'finance' and keep is null then
        select coalesce(jsonb_object_agg(f.key, f.value -> 1), '{}') into core_target from jsonb_each(found_now) as f;
    elsif keep = 'core' or (c.rule = 'assignment' and keep is null) then
        select coalesce(jsonb_object_agg(w.key, w.value), '{}') into legacy_target
        from jsonb_each(phase2.as_legacy(held)) as w
        where
            w.key = any(named)
            or (w.key = 'assigned_at' and 'assigned_driver_id' = any(named))
            or (w.key = 'currency' and 'currency_code' = any(named));
    elsif keep = 'legacy' then
        if 'note' = any(named) then
            core_target := core_target || jsonb_build_object('note', rulebook.norm_lines(legacy ->> 'note'));
        end if;
        if 'meeting_point' = any(named) then
            core_target := core_target
                || jsonb_build_object('meeting_point', rulebook.norm_place(legacy ->> 'meeting_point'));
        end if;
        if 'assigned_driver_id' = any(named) then
            core_target := core_target || jsonb_build_object(
                'assigned_driver_id', legacy -> 'assigned_driver_id',
                'assigned_partner_id', null,
                'assigned_at', (legacy ->> 'assigned_at')::timestamp at time zone 'UTC'
            );
        end if;
        if 'package_id' = any(named) then
            select jsonb_build_object('package_ref_type', p.type, 'package_ref_key', p.key) into taken
            from (
                select 'CATALOG_' || r.entity_type as type, r.entity_key as key, 1 as place
                from public.channel_external_refs as r
                where
                    r.external_ref_kind = 'BSTADMIN_PACKAGE_ID' and r.entity_type in ('PRODUCT', 'VARIANT')
                    and r.external_ref = legacy ->> 'package_id'
                union all
                select 'LEGACY_PACKAGE', null, 2
            ) as p
            order by p.place, p.type desc
            limit 1;
            core_target := core_target || taken || jsonb_build_object('legacy_package_id', legacy -> 'package_id');
        end if;
        if 'tour_date' = any(named) then
            core_target := core_target || jsonb_build_object('tour_date', found_now #> '{tour_date,1}');
        end if;
        if 'currency_code' = any(named) then
            core_target := core_target || jsonb_build_object('currency_code', found_now #> '{currency_code,1}');
        end if;
        if 'total_price' = any(named) then
            core_target := core_target || jsonb_build_object('total_price', found_now #> '{total_price,1}');
        end if;
    end if;
end
$$;
comment on function phase2.plan_conflict(uuid, jsonb, text, date, interval) is
'What settling a conflict changes on each side: by its rule (keep null), or as a person says, core, legacy or both.
A booking_header or a choice has nothing to apply without a person.';

create or replace function phase2.settle_conflict(
    conflict_id uuid, status text, core_target jsonb, legacy_target jsonb, legacy jsonb, actor text, reason text
) returns text
language plpgsql
as $$
#variable_conflict use_variable
declare
    c phase2.conflicts;
    b record;
    intent_id uuid := phase2.uuid7();
    before jsonb;
    legacy_before jsonb;
    outcome text := 'DONE';
begin
    select k.* into c from phase2.conflicts as k where k.conflict_id = settle_conflict.conflict_id for update;
    select x.channel_code, x.external_booking_ref into b
    from public.booking_core as x where x.booking_key = c.booking_key;
    perform pg_advisory_xact_lock(phase2.booking_lock(b.channel_code, b.external_booking_ref));
    if exists (
        select 1 from phase2.write_intents as i
        where
            i.booking_key = c.booking_key
            and (i.core_status in ('PENDING', 'BEHIND') or (i.legacy_status = 'PENDING' and not c.freezes))
    ) then
        return 'BUSY'; -- a write of it has not ended
    end if;
    if not c.freezes and phase2.is_frozen(c.booking_key) then
        return 'FROZEN'; -- nothing of it changes until a person has settled that
    end if;
    if c.freezes then
        update phase2.booking_freshness as f set last_core_write_at = c.core_write_at
        where f.booking_key = c.booking_key and settle_conflict.status <> 'OPEN';
    end if;
    select coalesce(jsonb_object_agg(v.key, v.value), '{}') into before
    from jsonb_each(phase2.core_values(c.booking_key)) as v
    where core_target ? v.key;
    select coalesce(jsonb_object_agg(x.key, legacy -> x.key), '{}') into legacy_before
    from jsonb_each(legacy_target) as x;
    if core_target <> '{}' or legacy_target <> '{}' then
        insert into phase2.write_intents (
            intent_id, idempotency_key, request_hash, booking_key, action, modules, mode, strict, actor, role,
            base_version, before, target, legacy_ids, legacy_target, legacy_expected, core_status, legacy_status
        )
        select
            intent_id, intent_id::text, '', c.booking_key, 'playbook', array[c.module], 'DUAL', true, actor, 'ADMIN',
            s.state_version, before, core_target,
            case when legacy ? 'booking_id' then array[(legacy ->> 'booking_id')::integer] else '{}'::integer[] end,
            legacy_target,
            legacy_before, 'PENDING', case legacy_target when '{}' then 'NONE' else 'PENDING' end
        from public.ops_booking_state as s
        where s.booking_key = c.booking_key;
        outcome := phase2.write_core(intent_id, true);
        if outcome <> 'DONE' then
            raise exception 'the core does not take it: %', outcome using errcode = 'P2003';
        end if;
    end if;
    update phase2.conflicts as k
    set
        status = settle_conflict.status,
        before = jsonb_build_object(
            'core', before,
            'legacy', legacy_before
        ),
        after = jsonb_build_object('core', core_target, 'legacy', legacy_target),
        ended_at = case when settle_conflict.status <> 'OPEN' then now() end,
        ended_by = case when settle_conflict.status <> 'OPEN' then actor end,
        reason = settle_conflict.reason
    where k.conflict_id = settle_conflict.conflict_id;
    if settle_conflict.status = 'OPEN' then
        perform phase2.hold_backfill(conflict_id);
    end if;
    update public.unmapped_queue as q
    set
        status = case settle_conflict.status when 'OPEN' then 'OPEN' else 'RESOLVED' end,
        resolved_by = case when settle_conflict.status <> 'OPEN' then actor end,
        resolved_at = case when settle_conflict.status <> 'OPEN' then now() end,
        updated_at = now()
    where
        c.freezes and q.queue_key = rulebook.queue_key(
            'BOOKING_REVIEW', 'core-api', 'conflicts', settle_conflict.conflict_id::text, 'MULTI_MATCH'
        );
    return outcome;
end
$$;
comment on function phase2.settle_conflict(uuid, text, jsonb, jsonb, jsonb, text, text) is
'Writes what was planned to the core, and an intent by which bstadmin gets its part; keeps both sides as they were
before. DONE, BUSY while a write of the booking has not ended, or FROZEN by another conflict. Status OPEN undoes: the conflict stands again.';
