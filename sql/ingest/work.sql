-- What a worker does with events: one call for all that are ready, one transaction, one round trip.
--
-- The log is the truth of an event's life, the queue only brings it to work. Pending is RECEIVED, or FAILED with a
-- retry to come; terminal is DONE, or FAILED without one, which has a dead letter. Whoever comes late finds the row
-- changed, and has no effect.

create or replace function phase2.is_pending(process_status text, next_retry_at timestamptz) returns boolean
language sql
immutable
as $$
select process_status in ('RECEIVED', 'PROCESSING') or (process_status = 'FAILED' and next_retry_at is not null)
$$;
comment on function phase2.is_pending(text, timestamptz) is
'Whether an accepted event is still to be worked on: neither applied nor in the dead letters.';

create or replace function phase2.booking_lock(channel_code text, external_booking_ref text) returns bigint
language sql
immutable
as $$
select hashtextextended('booking:' || channel_code || ':' || external_booking_ref, 0)
$$;
comment on function phase2.booking_lock(text, text) is
'The advisory lock of a booking, that of phase2.apply_event: who ends an event, or begins it anew, holds it.';

create or replace function phase2.first_pending(
    source_enum text, external_booking_ref text, out event_key uuid, out next_retry_at timestamptz
)
language plpgsql -- whose plans are kept; it is asked twice an event
stable
as $$
#variable_conflict use_column
begin
    select e.event_key, e.next_retry_at into first_pending.event_key, first_pending.next_retry_at
    from public.ingest_event_log as e
    where
        e.source_enum = first_pending.source_enum -- a channel has one source: this is the index of the second key
        and e.external_booking_ref = first_pending.external_booking_ref
        and phase2.is_pending(e.process_status, e.next_retry_at)
    order by e.created_at, e.event_key
    limit 1;
end
$$;
comment on function phase2.first_pending(text, text) is
'The event whose turn it is at this booking, and when it is due; nulls when nothing is pending there.';

create or replace function phase2.bury(
    event_key uuid, reason_code text, reason_detail text, poison_message boolean
) returns uuid
language plpgsql
as $$
#variable_conflict use_column
declare
    buried uuid;
begin
    -- at most one an event, by always writing the latest (target_schema, ingest_dead_letter)
    update public.ingest_dead_letter as d
    set
        reason_code = bury.reason_code,
        reason_detail = bury.reason_detail,
        poison_message = d.poison_message or bury.poison_message,
        status = case
            when d.status = 'REPLAYING' then 'FAILED'
            when d.status in ('SUCCEEDED', 'RESOLVED', 'CLOSED') then 'OPEN'
            else d.status
        end,
        last_failed_at = clock_timestamp(), -- this transaction may have waited for the booking
        next_replay_at = null,
        updated_at = now()
    where
        d.dead_letter_key = (
            select l.dead_letter_key
            from public.ingest_dead_letter as l
            where l.event_key = bury.event_key
            order by l.created_at desc
            limit 1
        )
    returning d.dead_letter_key into buried;
    if buried is null then
        insert into public.ingest_dead_letter (
            dead_letter_key, event_key, reason_code, reason_detail, poison_message, status, first_failed_at,
            last_failed_at, raw_payload
        )
        select
            phase2.uuid7(), e.event_key, bury.reason_code, bury.reason_detail, bury.poison_message, 'OPEN',
            clock_timestamp(), clock_timestamp(), e.raw_payload
        from public.ingest_event_log as e
        where e.event_key = bury.event_key
        returning ingest_dead_letter.dead_letter_key into buried;
    end if;
    return buried;
end
$$;
comment on function phase2.bury(uuid, text, text, boolean) is
'Puts an event among the dead letters, and returns its key there. Who calls ends the event itself.';

create or replace function phase2.event_failed(
    event_key uuid,
    state text,
    detail text,
    retry_seconds double precision[],
    out outcome text,
    out wait_ms bigint,
    out reason text
)
language plpgsql
as $$
#variable_conflict use_column
declare
    hopeless boolean := state in ('P2001', 'P2002');
    tries integer;
begin
    update public.ingest_event_log as e
    set
        attempt_count = e.attempt_count + 1,
        process_status = 'FAILED',
        next_retry_at = case
            when not hopeless
                then clock_timestamp() + retry_seconds[e.attempt_count + 1] * interval '1 second'
        end,
        error_message = detail
    where
        e.event_key = event_failed.event_key
        and phase2.is_pending(e.process_status, e.next_retry_at)
    returning e.attempt_count, (retry_seconds[e.attempt_count] * 1000)::bigint into tries, wait_ms;
    if tries is null then
        outcome := 'ALREADY'; -- somebody else has ended it
        return;
    end if;
    if wait_ms is not null and not hopeless then
        outcome := 'RETRY';
        return;
    end if;
    outcome := 'DEAD';
    wait_ms := null;
    reason := case state
        when 'P2001' then 'VALIDATION_ERROR' when 'P2002' then 'SCHEMA_MISMATCH' else 'RETRIES_EXHAUSTED'
    end;
    perform phase2.bury(event_key, reason, detail, true);
end
$$;
comment on function phase2.event_failed(uuid, text, text, double precision[]) is
'Counts a failed try: RETRY with its delay, DEAD with its reason, or ALREADY. The caller holds the booking''s lock.';

drop function if exists phase2.work_events(uuid[], double precision[]);
create or replace function phase2.work_events(
    event_keys uuid[], retry_seconds double precision[], most integer default 50
) returns table (event_key uuid, outcome text, wait_ms bigint, reason text)
language plpgsql
as $$
#variable_conflict use_column
declare
    e record;
    turn record;
    tried record;
    ended text;
    state text;
    message text;
    place text;
begin
    for e in
        select
            k.event_key as asked, l.event_key as known, l.source_enum, l.channel_code, l.external_booking_ref
        from unnest(event_keys) as k (event_key)
        left join public.ingest_event_log as l on k.event_key = l.event_key
        order by l.created_at, l.event_key
    loop
        event_key := e.asked;
        outcome := null;
        wait_ms := null;
        reason := null;
        ended := null;
        if e.known is null then
            outcome := 'MISSING';
            return next;
            continue;
        end if;
        if not pg_try_advisory_xact_lock(phase2.booking_lock(e.channel_code, e.external_booking_ref)) then
            outcome := 'BUSY';
            return next;
            continue;
        end if;
        -- Whoever comes to a booking takes what is pending there, in its order: nobody has to wait for a job.
        for _ in 1..most loop
            select f.* into turn from phase2.first_pending(e.source_enum, e.external_booking_ref) as f;
            exit when turn.event_key is null or turn.next_retry_at > clock_timestamp();
            begin
                select a.outcome, null::bigint as wait_ms, null::text as reason into tried
                from (select phase2.apply_event(turn.event_key) as outcome) as a;
            exception when others then
                get stacked diagnostics
                    state := returned_sqlstate, message := message_text, place := constraint_name;
                -- the server's own troubles are no try of the event; a deadlock is one only when it was alone
                if left(state, 2) in ('08', '53', '57', '58')
                    or (left(state, 2) in ('40', '55') and cardinality(event_keys) > 1) then
                    raise;
                end if;
                -- our own words name fields; the server's may quote a row
                if state not in ('P2001', 'P2002') then
                    message := concat_ws(' ', 'SQLSTATE', state, nullif(place, ''));
                end if;
                select f.* into tried from phase2.event_failed(turn.event_key, state, message, retry_seconds) as f;
            end;
            ended := tried.outcome;
            if turn.event_key = e.known then
                outcome := tried.outcome;
                wait_ms := tried.wait_ms;
                reason := tried.reason;
            end if;
            if ended = 'APPLIED' then
                update public.ingest_dead_letter as d
                set status = 'SUCCEEDED', next_replay_at = null, updated_at = now()
                where d.status = 'REPLAYING' and d.event_key = turn.event_key;
            end if;
            exit when ended not in ('APPLIED', 'DEAD');
        end loop;
        if outcome is null then
            select f.* into turn from phase2.first_pending(e.source_enum, e.external_booking_ref) as f;
            select
                case
                    when not phase2.is_pending(l.process_status, l.next_retry_at)
                        then case l.process_status when 'FAILED' then 'DEAD' else 'ALREADY' end
                    when turn.next_retry_at > clock_timestamp() then 'WAITS'
                    when ended in ('BUSY', 'WAITS') then ended
                    else 'MORE'
                end,
                1 + extract(epoch from turn.next_retry_at - clock_timestamp()) * 1000,
                (
                    select max(d.reason_code) from public.ingest_dead_letter as d
                    where l.process_status = 'FAILED' and d.event_key = l.event_key
                )
            into outcome, wait_ms, reason
            from public.ingest_event_log as l
            where l.event_key = e.known;
        end if;
        return next;
    end loop;
end
$$;
comment on function phase2.work_events(uuid[], double precision[], integer) is
'Takes the bookings of these events on, each event of them in its turn, at most so many; what became of those asked for:
APPLIED, ALREADY, RETRY (with its delay), DEAD (with its reason), WAITS (until a retry is due, its own or that of an
event before it), BUSY (somebody else is at the booking), MORE (ask again) or MISSING.';
