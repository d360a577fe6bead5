-- Applying an event to its booking: one call inside the caller's transaction (docs/ingestion-apply.md: what and why).
--
-- Which value stands does not depend on the order in which events come: each field shows the latest event that has one,
-- and phase2.booking_event_times remembers of each field how late that was. What is written twice stays as it is.

create table if not exists phase2.booking_event_times (
    booking_key uuid not null,
    made_here boolean not null,
    source_at timestamptz,
    first_event_at timestamptz not null,
    booking_at timestamptz,
    tour_times jsonb not null default '{}',
    name_at timestamptz,
    email_at timestamptz,
    phone_at timestamptz,
    pickup_at timestamptz,
    pickup_stands_in boolean not null default false,
    meeting_point_at timestamptz,
    note_at timestamptz,
    constraint booking_event_times_pkey primary key (booking_key)
);
comment on table phase2.booking_event_times is
'Of each booking that an event touched: how late the event was that gave a field its value. Null: no event did.';
comment on column phase2.booking_event_times.made_here is 'First seen by ingestion.';
comment on column phase2.booking_event_times.source_at is
'phase2.booking_source_times when an event was last applied: another one now means that a backfill came between.';
comment on column phase2.booking_event_times.booking_at is
'Of what every event has: tour date, head counts, currency, total, and whether the booking stands.';
comment on column phase2.booking_event_times.tour_times is
'Tour date -> {at, time}: the latest time told for that date, since a time goes with its date (mapping 4.4).';
comment on column phase2.booking_event_times.pickup_stands_in is
'The pickup is a meeting point that stands in for one (mapping 4.6): any real pickup replaces it.';

create or replace function phase2.uuid7() returns uuid
language sql volatile parallel safe
as $$
    select
        encode(
            set_bit(
                set_bit(
                    overlay(
                        uuid_send(gen_random_uuid())
                        placing substr(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint), 3) from 1 for 6
                    ),
                    52, 1
                ),
                53, 1
            ),
            'hex'
        )::uuid
$$;
comment on function phase2.uuid7() is
'RFC 9562, version 7: milliseconds in the first 48 bits, the rest random. A version 4 key with two bits more.';

create or replace function phase2.backfill_is_writing() returns boolean
language plpgsql -- whose plans are kept: a function in sql would be planned anew for each event
stable
as $$
begin
    if not exists (
        select 1 from phase2.batch_state as b
        where b.batch in ('D', 'E') and b.status = 'RUNNING'
    ) then
        return false;
    end if;
    -- the runner's lock (bridge/steps.py): a killed run is none
    return exists (
        select 1 from pg_catalog.pg_locks as l
        where
            l.locktype = 'advisory' and l.granted and l.mode = 'ExclusiveLock'
            and (l.classid::bigint << 32) + l.objid::bigint = 123593613862194 -- 0x706861736532
            and l.database = (
                select d.oid from pg_catalog.pg_database as d where d.datname = current_database()
            )
    );
end
$$;
comment on function phase2.backfill_is_writing() is
'Batch D or E is at work: it writes what it read before, and would undo an event that came in between.';

create or replace function phase2.placeholders(kind text) returns text[]
language plpgsql
as $$
declare
    setting constant text := 'phase2.placeholders_' || kind;
begin
    if coalesce(current_setting(setting, true), '') = '' then
        perform set_config(setting, rulebook.placeholders(kind)::text, true);
    end if;
    return current_setting(setting)::text[];
end
$$;
comment on function phase2.placeholders(text) is
'rulebook.placeholders, asked once a transaction: a function in sql that reads a table is planned anew for each event.';

create or replace function phase2.event_facts(
    payload jsonb,
    out tour_date date,
    out tour_time time,
    out currency_code text,
    out total_price numeric,
    out adults integer,
    out children integer,
    out main_name text,
    out name_kind integer,
    out main_email text,
    out email_kind integer,
    out phone text,
    out pickup_location text,
    out meeting_point text,
    out note text,
    out problems jsonb
)
language plpgsql stable
as $$
declare
    booking jsonb := payload -> 'booking';
    customer jsonb := payload -> 'customer';
    raw_total numeric;
begin
    if payload ->> 'payloadVersion' is distinct from 'v1' or jsonb_typeof(booking) is distinct from 'object' then
        raise exception 'SCHEMA_MISMATCH: the payload is no booking event v1' using errcode = 'P2002';
    end if;
    begin
        tour_date := substring(booking ->> 'tourDate' from '^[0-9]{4}-[0-9]{2}-[0-9]{2}$')::date;
        adults := rulebook.norm_count((booking ->> 'adult')::numeric::integer);
        children := rulebook.norm_count((booking ->> 'child')::numeric::integer);
        raw_total := (booking ->> 'totalPrice')::numeric;
    exception
        when data_exception then
            raise exception 'VALIDATION_ERROR: tourDate, adult, child or totalPrice cannot be read'
                using errcode = 'P2001';
    end;
    if not rulebook.is_bridgeable_date(tour_date) then
        raise exception 'VALIDATION_ERROR: tourDate is missing or outside 1900 to 2199' using errcode = 'P2001';
    end if;

    select
        rulebook.parse_tour_time(booking ->> 'tourTime'),
        rulebook.norm_currency(booking ->> 'currency'),
        greatest(rulebook.norm_money(raw_total), 0),
        rulebook.norm_text(customer ->> 'name'),
        rulebook.norm_text(customer ->> 'email'),
        rulebook.norm_phone(customer ->> 'phone'),
        rulebook.norm_place(booking ->> 'pickupLocation'),
        rulebook.norm_place(booking ->> 'meetingPoint'),
        rulebook.norm_lines(booking ->> 'note')
    into tour_time, currency_code, total_price, main_name, main_email, phone, pickup_location, meeting_point, note;
    -- kinds as in int_booking_contacts: 1 real, 2 an invalid e-mail, 3 a placeholder
    name_kind := case when rulebook.is_placeholder_name(main_name, phase2.placeholders('name')) then 3 else 1 end;
    email_kind := case
        when rulebook.is_placeholder_email(main_email, phase2.placeholders('email')) then 3
        when rulebook.is_email(main_email) then 1
        else 2
    end;

    if
        not rulebook.is_currency(booking ->> 'currency')
        or not rulebook.is_money(raw_total)
        or raw_total < 0
        or length(main_name) > 191
        or length(main_email) > 191
        or length(phone) > 64
    then
        select
            jsonb_agg(
                jsonb_build_object('field', found.field, 'problem', found.problem, 'raw', found.raw_value)
                order by found.field collate "C"
            )
        into problems
        from (
            values
            (
                not rulebook.is_currency(booking ->> 'currency'), 'currency', 'no currency code, taken as USD',
                booking -> 'currency'
            ),
            (
                not rulebook.is_money(raw_total), 'total_price', 'no amount that fits, taken as 0',
                to_jsonb(raw_total::text)
            ),
            (raw_total < 0, 'total_price', 'total is below 0, taken as 0', to_jsonb(raw_total::text)),
            (
                length(main_name) > 191, 'main_contact_name', 'text is longer than its column, cut',
                to_jsonb(main_name)
            ),
            (
                length(main_email) > 191, 'main_contact_email', 'text is longer than its column, cut',
                to_jsonb(main_email)
            ),
            (length(phone) > 64, 'phone_number', 'text is longer than its column, cut', to_jsonb(phone))
        ) as found (is_found, field, problem, raw_value)
        where found.is_found;
    end if;
end
$$;
comment on function phase2.event_facts(jsonb) is
'A payload''s facts, normalised by the rulebook. Raises P2001 VALIDATION_ERROR, P2002 SCHEMA_MISMATCH.';

create or replace function phase2.event_fulfilment(
    booking_key uuid,
    channel_code text,
    stored text,
    tour_date date,
    customer_payment_status text,
    updated_from_source text,
    driver_id integer,
    as_of date
) returns text
language plpgsql stable
as $$
#variable_conflict use_column
declare
    finance record;
begin
    select f.booking_key, f.settlement_status, f.validated_at, f.pattern_id into finance
    from public.ops_finance_bridge as f
    where f.booking_key = event_fulfilment.booking_key;
    -- what only balisnap has, or nobody, shows no trace of bstadmin (mapping 4.7)
    if
        channel_code = 'DIRECT'
        and updated_from_source is distinct from 'bstadmin'
        and driver_id is null
        and finance.booking_key is null
    then
        return rulebook.fulfilment_status_direct(
            stored = 'CANCELLED', tour_date, as_of, customer_payment_status = 'PAID'
        );
    end if;
    return rulebook.fulfilment_status(
        stored, (finance.settlement_status = 'SETTLED')::integer::bigint, 0, finance.validated_at, tour_date, as_of,
        driver_id, finance.pattern_id::integer
    );
end
$$;
comment on function phase2.event_fulfilment(uuid, text, text, date, text, text, integer, date) is
'The engine of mapping 4.7 for a booking that shows an event, whose type is its stored status.';

create or replace function phase2.renew_fulfilment(
    as_of date default null, most integer default 500 -- null: today in Bali
) returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
    b record;
    renewed integer := 0;
    left_out integer := 0;
    today date := coalesce(as_of, rulebook.bali_date(now()));
begin
    if exists (
        select 1 from phase2.watermarks as w
        where w.name = 'fulfilment' and w.at >= today::timestamp at time zone 'UTC'
    ) or phase2.backfill_is_writing() then
        return 0;
    end if;
    for b in
        select
            c.booking_key, c.channel_code, c.external_booking_ref, c.tour_date, c.ops_fulfillment_status, found.status
        from public.booking_core as c
        inner join public.ops_booking_state as s on c.booking_key = s.booking_key
        inner join phase2.booking_event_times as t on c.booking_key = t.booking_key
        left join phase2.booking_freshness as f on c.booking_key = f.booking_key
        left join phase2.booking_source_times as o on c.booking_key = o.booking_key
        cross join lateral phase2.event_fulfilment(
            c.booking_key, c.channel_code, c.ops_fulfillment_status, c.tour_date, c.customer_payment_status,
            s.updated_from_source, s.assigned_driver_id, today
        ) as found (status)
        where
            c.tour_date <= today -- before it no status depends on the day
            and c.ops_fulfillment_status in ('NEW', 'UPDATED', 'READY', 'ATTENTION')
            and (
                c.ops_fulfillment_status <> 'ATTENTION' -- which only balisnap's rule and a finance end
                or c.channel_code = 'DIRECT'
                or exists (select 1 from public.ops_finance_bridge as p where p.booking_key = c.booking_key)
            )
            and t.booking_at is not null
            and (o.source_updated_at is null or f.last_event_time > o.source_updated_at) -- else batch D's
            and found.status <> c.ops_fulfillment_status
        limit most
    loop
        if not pg_try_advisory_xact_lock(phase2.booking_lock(b.channel_code, b.external_booking_ref)) then
            left_out := left_out + 1; -- an event is at it
            continue;
        end if;
        update public.booking_core as c
        set ops_fulfillment_status = b.status, updated_at = now()
        where
            c.booking_key = b.booking_key
            and (c.tour_date, c.ops_fulfillment_status) = (b.tour_date, b.ops_fulfillment_status);
        if not found then
            continue; -- an event came just before the lock: it knew the day
        end if;
        update public.ops_booking_state as s
        set ops_fulfillment_status = b.status, updated_at = now()
        where s.booking_key = b.booking_key;
        renewed := renewed + 1;
    end loop;
    if renewed + left_out = 0 then
        insert into phase2.watermarks as w (name, at)
        values ('fulfilment', today::timestamp at time zone 'UTC')
        on conflict (name) do update set at = excluded.at, updated_at = now();
    end if;
    return renewed;
end
$$;
comment on function phase2.renew_fulfilment(date, integer) is
'On a new day in Bali: the status of bookings that show an event, of which no batch D thinks; how many were renewed. '
'The sweeper asks; 0 when the day is done, or while a backfill writes.';

-- A session keeps its plans for hours: none may be made for tables that are still small, nor anew for each event.
create or replace function phase2.apply_event(event_key uuid) returns text
language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    applied_key constant uuid := event_key;
    event record;
    fact record;
    core record;
    held_core record;
    contact record;
    held_contact record;
    state record;
    held_state record;
    times record;
    key uuid;
    is_new boolean;
    held_email_kind integer;
    synthetic_key uuid;
    unit_price numeric;
    source_at timestamptz;
    last_event_at timestamptz;
    base_at timestamptz;  -- how late the values are that no event gave
    event_at timestamptz; -- the event's place among those of its booking
    today date := rulebook.bali_date(now());
begin
    select e.* into event from public.ingest_event_log as e where e.event_key = applied_key;
    if event.event_key is null then
        raise exception 'VALIDATION_ERROR: there is no such event' using errcode = 'P2001';
    end if;
    if event.process_status = 'DONE' then
        return 'ALREADY';
    end if;
    if phase2.backfill_is_writing() or not pg_try_advisory_xact_lock(
        phase2.booking_lock(event.channel_code, event.external_booking_ref)
    ) or exists (
        -- frozen until a person has resolved its conflict (blueprint 6.10): the event waits, and is not lost
        select 1 from phase2.conflicts as k
        join public.booking_core as c on c.booking_key = k.booking_key
        where
            k.freezes and k.status = 'OPEN'
            and c.channel_code = event.channel_code and c.external_booking_ref = event.external_booking_ref
    ) then
        return 'BUSY';
    end if;
    if exists (
        select 1 from public.ingest_event_log as e
        where
            e.source_enum = event.source_enum -- a channel has one source: this is the index of the second key
            and e.external_booking_ref = event.external_booking_ref
            and phase2.is_pending(e.process_status, e.next_retry_at) -- not: has a dead letter, whose time is shorter
            and (e.created_at, e.event_key) < (event.created_at, event.event_key)
    ) then
        return 'WAITS';
    end if;
    update public.ingest_event_log as e
    set process_status = 'DONE', processed_at = clock_timestamp(), next_retry_at = null, error_message = null
    where e.event_key = applied_key and e.process_status <> 'DONE';
    if not found then
        return 'ALREADY';
    end if;

    fact := phase2.event_facts(event.raw_payload);
    -- events of one second: a cancellation is the last of them
    event_at := event.event_time_normalized + interval '1 microsecond'
        * case event.event_type when 'CANCELLED' then 2 when 'UPDATED' then 1 else 0 end;

    -- What stands, and how late it is.
    select c.* into core
    from public.booking_core as c
    where c.channel_code = event.channel_code and c.external_booking_ref = event.external_booking_ref;
    is_new := core.booking_key is null;
    key := coalesce(core.booking_key, phase2.uuid7());
    held_core := core;
    select c.* into contact from public.booking_contact as c where c.booking_key = key;
    held_contact := contact;
    select s.* into state from public.ops_booking_state as s where s.booking_key = key;
    held_state := state;
    select t.* into times from phase2.booking_event_times as t where t.booking_key = key;
    select s.source_updated_at into source_at from phase2.booking_source_times as s where s.booking_key = key;
    select f.last_event_time into last_event_at from phase2.booking_freshness as f where f.booking_key = key;
    -- an event must be strictly later than the sources, whatever its place in its second (mapping 4.13)
    base_at := coalesce(source_at + interval '2 microseconds', '-infinity');
    if times.booking_key is null then
        times.booking_key := key;
        times.made_here := is_new;
        times.first_event_at := event.event_time_normalized;
    elsif times.source_at is distinct from source_at and last_event_at <= source_at then
        -- a backfill that was later than all events wrote every field since: none is an event's any more
        times.booking_at := null;
        times.tour_times := null;
        times.name_at := null;
        times.email_at := null;
        times.phone_at := null;
        times.pickup_at := null;
        times.meeting_point_at := null;
        times.note_at := null;
    end if;
    if times.tour_times is null then
        times.tour_times := '{}';
        times.pickup_stands_in := coalesce(
            event.channel_code = 'DIRECT' and contact.pickup_location = contact.meeting_point, false
        );
    end if;
    times.source_at := source_at;
    times.first_event_at := least(times.first_event_at, event.event_time_normalized);

    -- A time goes with its date: of each date the latest is remembered, whichever date the booking has now.
    if core.tour_time is not null and not times.tour_times ? core.tour_date::text then
        times.tour_times := times.tour_times || jsonb_build_object(
            core.tour_date::text, jsonb_build_object('at', base_at, 'time', core.tour_time)
        );
    end if;
    if fact.tour_time is not null and coalesce(
        event_at > (times.tour_times -> fact.tour_date::text ->> 'at')::timestamptz, true
    ) then
        times.tour_times := times.tour_times || jsonb_build_object(
            fact.tour_date::text, jsonb_build_object('at', event_at, 'time', fact.tour_time)
        );
    end if;

    -- What every event has.
    if is_new or event_at > coalesce(times.booking_at, base_at) then
        times.booking_at := event_at;
        core.source_enum_compat := coalesce(core.source_enum_compat, event.source_enum); -- MANUAL is also for others
        core.tour_date := fact.tour_date;
        core.currency_code := fact.currency_code;
        core.total_price := fact.total_price;
        core.number_of_adult := fact.adults;
        core.number_of_child := fact.children;
        if times.made_here and source_at is null and coalesce(
            core.customer_payment_status not in ('PAID', 'REFUNDED'), true
        ) then
            -- no payment speaks of it: balisnap's own word on DIRECT, else not paid yet (mapping 5.2)
            core.customer_payment_status := case
                when event.channel_code = 'DIRECT' and event.event_type = 'CANCELLED'
                    then rulebook.balisnap_status_payment('CANCELLED', null)
                else 'PENDING_PAYMENT'
            end;
        end if;
        core.ops_fulfillment_status := phase2.event_fulfilment(
            key, event.channel_code,
            case
                when state.ops_fulfillment_status = 'NO_SHOW' then 'NO_SHOW'
                when event.event_type = 'CREATED' then 'NEW'
                else event.event_type
            end,
            core.tour_date, core.customer_payment_status, state.updated_from_source, state.assigned_driver_id, today
        );
        state.ops_fulfillment_status := core.ops_fulfillment_status;
    end if;
    core.tour_time := (times.tour_times -> core.tour_date::text ->> 'time')::time;
    if times.made_here and source_at is null then
        core.booking_created_at := times.first_event_at;
        core.booking_date := rulebook.bali_date(times.first_event_at);
    end if;
    if fact.note is not null and (core.note is null or event_at > coalesce(times.note_at, base_at)) then
        core.note := fact.note;
        times.note_at := event_at;
    end if;

    -- Contact, field by field: the best kind, of that the latest (mapping 4.6).
    held_email_kind := case
        when contact.main_email is null then 4
        when not contact.is_placeholder_email then 1
        when rulebook.is_placeholder_email(contact.main_email, phase2.placeholders('email')) then 3
        else 2
    end;
    if fact.main_name is not null and (
        contact.main_name is null
        or (fact.name_kind > 1, contact.is_placeholder_name) = (false, true)
        or ((fact.name_kind > 1) = contact.is_placeholder_name and event_at > coalesce(times.name_at, base_at))
    ) then
        contact.main_name := left(fact.main_name, 191);
        contact.is_placeholder_name := fact.name_kind > 1;
        times.name_at := event_at;
    end if;
    if fact.main_email is not null and (
        fact.email_kind < held_email_kind
        or (fact.email_kind = held_email_kind and event_at > coalesce(times.email_at, base_at))
    ) then
        contact.main_email := left(fact.main_email, 191);
        contact.is_placeholder_email := fact.email_kind > 1;
        times.email_at := event_at;
    end if;
    if fact.phone is not null and (contact.phone is null or event_at > coalesce(times.phone_at, base_at)) then
        contact.phone := left(fact.phone, 64);
        times.phone_at := event_at;
    end if;
    if fact.pickup_location is not null then
        if
            contact.pickup_location is null or times.pickup_stands_in
            or event_at > coalesce(times.pickup_at, base_at)
        then
            contact.pickup_location := fact.pickup_location;
            times.pickup_stands_in := false;
            times.pickup_at := event_at;
        end if;
    elsif event.channel_code = 'DIRECT' and fact.meeting_point is not null and (
        contact.pickup_location is null
        or (times.pickup_stands_in and event_at > coalesce(times.pickup_at, base_at))
    ) then
        contact.pickup_location := fact.meeting_point;
        times.pickup_stands_in := true;
        times.pickup_at := event_at;
    end if;
    if
        fact.meeting_point is not null
        and (contact.meeting_point is null or event_at > coalesce(times.meeting_point_at, base_at))
    then
        contact.meeting_point := fact.meeting_point;
        times.meeting_point_at := event_at;
    end if;
    if event_at > base_at then
        contact.updated_from_source := 'ingest';
    end if;

    -- Written is what differs.
    synthetic_key := rulebook.synthetic_item_key(event.channel_code, event.external_booking_ref);
    if is_new then
        insert into public.booking_core (
            booking_key, channel_code, source_enum_compat, external_booking_ref, booking_created_at, booking_date,
            tour_date, tour_time, currency_code, total_price, number_of_adult, number_of_child,
            customer_payment_status, ops_fulfillment_status, package_ref_type, note
        )
        values (
            key, event.channel_code, core.source_enum_compat, event.external_booking_ref, core.booking_created_at,
            core.booking_date, core.tour_date, core.tour_time, core.currency_code, core.total_price,
            core.number_of_adult, core.number_of_child, core.customer_payment_status, core.ops_fulfillment_status,
            'LEGACY_PACKAGE', core.note
        );
        insert into public.channel_external_refs (
            external_ref_key, entity_type, entity_key, channel_code, external_ref_kind, external_ref, source_system,
            source_table, source_pk
        )
        values (
            rulebook.external_ref_key('BOOKING', event.channel_code, 'BOOKING_REF', event.external_booking_ref),
            'BOOKING', key, event.channel_code, 'BOOKING_REF', event.external_booking_ref, 'ingest',
            'booking_identity', left(event.channel_code || ':' || event.external_booking_ref, 128)
        )
        on conflict do nothing;
    elsif core is distinct from held_core then
        update public.booking_core as c
        set
            source_enum_compat = core.source_enum_compat,
            booking_created_at = core.booking_created_at,
            booking_date = core.booking_date,
            tour_date = core.tour_date,
            tour_time = core.tour_time,
            currency_code = core.currency_code,
            total_price = core.total_price,
            number_of_adult = core.number_of_adult,
            number_of_child = core.number_of_child,
            customer_payment_status = core.customer_payment_status,
            ops_fulfillment_status = core.ops_fulfillment_status,
            note = core.note,
            updated_at = now()
        where c.booking_key = key;
    end if;
    if held_contact.booking_key is null then
        insert into public.booking_contact (
            booking_key, main_name, main_email, phone, pickup_location, meeting_point, is_placeholder_name,
            is_placeholder_email, updated_from_source
        )
        values (
            key, contact.main_name, contact.main_email, contact.phone, contact.pickup_location,
            contact.meeting_point, coalesce(contact.is_placeholder_name, true),
            coalesce(contact.is_placeholder_email, true), 'ingest'
        );
    elsif contact is distinct from held_contact then
        update public.booking_contact as c
        set
            main_name = contact.main_name,
            main_email = contact.main_email,
            phone = contact.phone,
            pickup_location = contact.pickup_location,
            meeting_point = contact.meeting_point,
            is_placeholder_name = contact.is_placeholder_name,
            is_placeholder_email = contact.is_placeholder_email,
            updated_from_source = contact.updated_from_source,
            updated_at = now()
        where c.booking_key = key;
    end if;
    if held_state.booking_key is null then
        insert into public.ops_booking_state (
            booking_key, ops_fulfillment_status, is_paid_flag, updated_from_source
        )
        values (key, core.ops_fulfillment_status, core.customer_payment_status = 'PAID', 'ingest');
    elsif state is distinct from held_state then
        update public.ops_booking_state as s
        set ops_fulfillment_status = state.ops_fulfillment_status, updated_at = now()
        where s.booking_key = key;
    end if;
    if times.booking_at = event_at then
        insert into public.booking_party as p (booking_key, adult_qty, child_qty)
        values (key, core.number_of_adult, core.number_of_child)
        on conflict (booking_key) do update
            set adult_qty = excluded.adult_qty, child_qty = excluded.child_qty, updated_at = now()
            where (p.adult_qty, p.child_qty) <> (excluded.adult_qty, excluded.child_qty);
        unit_price := rulebook.synthetic_unit_price(core.total_price, core.number_of_adult, core.number_of_child);
        if is_new then
            insert into public.booking_item_snapshot (
                booking_item_key, booking_key, currency_code, adult_qty, child_qty, adult_unit_price,
                child_unit_price, total_amount, snapshot_json
            )
            values (
                synthetic_key, key, core.currency_code, core.number_of_adult, core.number_of_child, unit_price,
                unit_price, core.total_price, '{"synthetic": true}'
            )
            on conflict (booking_item_key) do nothing;
        else
            update public.booking_item_snapshot as i
            set
                currency_code = core.currency_code,
                adult_qty = core.number_of_adult,
                child_qty = core.number_of_child,
                adult_unit_price = unit_price,
                child_unit_price = unit_price,
                total_amount = core.total_price,
                updated_at = now()
            where
                i.booking_item_key = synthetic_key
                and i.booking_key = key
                and (i.currency_code, i.adult_qty, i.child_qty, i.adult_unit_price, i.total_amount)
                <> (core.currency_code, core.number_of_adult, core.number_of_child, unit_price, core.total_price);
        end if;
    end if;

    -- What is remembered.
    insert into phase2.booking_freshness as f (booking_key, last_event_time)
    values (key, event.event_time_normalized)
    on conflict (booking_key) do update
        set last_event_time = excluded.last_event_time
        where f.last_event_time is null or f.last_event_time < excluded.last_event_time;
    insert into phase2.booking_event_times as t (
        booking_key, made_here, source_at, first_event_at, booking_at, tour_times, name_at, email_at, phone_at,
        pickup_at, pickup_stands_in, meeting_point_at, note_at
    )
    values (
        key, times.made_here, times.source_at, times.first_event_at, times.booking_at, times.tour_times,
        times.name_at, times.email_at, times.phone_at, times.pickup_at, times.pickup_stands_in,
        times.meeting_point_at, times.note_at
    )
    on conflict (booking_key) do update
        set
            source_at = excluded.source_at,
            first_event_at = excluded.first_event_at,
            booking_at = excluded.booking_at,
            tour_times = excluded.tour_times,
            name_at = excluded.name_at,
            email_at = excluded.email_at,
            phone_at = excluded.phone_at,
            pickup_at = excluded.pickup_at,
            pickup_stands_in = excluded.pickup_stands_in,
            meeting_point_at = excluded.meeting_point_at,
            note_at = excluded.note_at;
    if fact.problems is not null then
        insert into public.unmapped_queue (
            queue_key, queue_type, channel_code, source_system, source_table, source_pk, reason_code, reason_detail,
            payload
        )
        values (
            rulebook.queue_key(
                'BOOKING_REVIEW', 'ingest', 'ingest_event_log', applied_key::text, 'INVALID_SOURCE'
            ),
            'BOOKING_REVIEW', event.channel_code, 'ingest', 'ingest_event_log', applied_key::text, 'INVALID_SOURCE',
            (
                select string_agg(p.value ->> 'field' || ': ' || (p.value ->> 'problem'), '; ')
                from jsonb_array_elements(fact.problems) as p (value)
            ),
            jsonb_build_object(
                'problems', fact.problems, 'booking', event.channel_code || ':' || event.external_booking_ref
            )
        )
        on conflict (queue_key) do nothing;
    end if;
    return 'APPLIED';
end
$$;
comment on function phase2.apply_event(uuid) is
'APPLIED; ALREADY (it is DONE); BUSY (somebody is at this booking, a backfill at all of them, or it is frozen); '
'WAITS (an earlier event of the booking goes first). Raises P2001 VALIDATION_ERROR and P2002 SCHEMA_MISMATCH; any '
'other error passes.';
