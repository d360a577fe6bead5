-- Where an event of an emitter belongs in the log (docs/ingestion-emitters.md, "Nothing lost").

-- Of one booking the log has one event of a type a second (the contract's secondary key): a second change within that
-- second would be answered with the first one's answer, and be lost. So it takes the next second that is free.
create or replace function phase2.place_event(
    source text,
    ref text,
    event_type text,
    event_time timestamptz,
    key text,
    same_version text,
    out is_known boolean,
    out at timestamptz,
    out idempotency_key text
)
language plpgsql stable
as $$
#variable_conflict use_column
declare
    holder text;
    step interval;
begin
    at := place_event.event_time;
    idempotency_key := place_event.key;
    -- a key under which another event's answer was given says nothing of this one
    is_known := exists (
        select 1
        from phase2.ingest_keys as k
        left join public.ingest_event_log as e on k.event_key = e.event_key
        where
            k.idempotency_key = place_event.key
            and (e.event_key is null or e.idempotency_key = place_event.key)
    );
    while not is_known and at is not null loop
        select e.idempotency_key into holder
        from public.ingest_event_log as e
        where
            e.source_enum = place_event.source
            and e.external_booking_ref = place_event.ref
            and e.event_type = place_event.event_type
            and e.event_time_normalized = date_trunc('second', at);
        exit when not found;
        is_known := starts_with(holder, place_event.key || ':') or holder = place_event.key;
        -- the same row of the booking: it is told again for what hangs on it (a payment), and is no later word
        step := coalesce(
            step, interval '1 second' * case when starts_with(holder, place_event.same_version) then -1 else 1 end
        );
        at := date_trunc('second', at) + step;
    end loop;
    if not is_known and exists (
        select 1 from phase2.ingest_keys as k where k.idempotency_key = place_event.key
    ) then
        idempotency_key := place_event.key || ':' || extract(epoch from date_trunc('second', at))::bigint::text;
    end if;
end
$$;
comment on function phase2.place_event(text, text, text, timestamptz, text, text) is
'Whether the event was accepted before; else the first time from its own on that is free for it, and its key.';

create or replace function phase2.mail_day(value text) returns date
language plpgsql stable
as $$
begin
    return case
        when value ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' then value::date
        when value ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9]{2}:?[0-9]{2})$'
            then rulebook.bali_date(value::timestamptz)
    end;
exception
    when data_exception then
        return null;
end
$$;
comment on function phase2.mail_day(text) is
'The day that a mail''s parser wrote down: as a day, or as an instant, of which it is the day in Bali. Else null.';
