-- Accepting an event: one call, one transaction, one round trip. What it returns is committed before 202 is sent.
--
-- Each of the three unique keys is taken by an insert that waits for whoever holds it: nonce, idempotency key,
-- secondary key. Events that share a commit hold several of each, so accept_events takes a lock for every key first,
-- all in one order: parallel requests are decided one after the other and never wait in a circle.

create or replace function phase2.use_nonce(nonce text, idempotency_key text, payload_hash text) returns boolean
language plpgsql
as $$
#variable_conflict use_column
begin
    insert into phase2.ingest_nonces as n (nonce, idempotency_key, payload_hash)
    values (use_nonce.nonce, use_nonce.idempotency_key, use_nonce.payload_hash)
    on conflict (nonce) do update
        set
            idempotency_key = excluded.idempotency_key,
            payload_hash = excluded.payload_hash,
            seen_at = excluded.seen_at
        where n.seen_at <= now() - interval '10 minutes';
    if found then
        return true;
    end if;
    return exists (
        select 1 from phase2.ingest_nonces as n
        where
            n.nonce = use_nonce.nonce
            and n.idempotency_key = use_nonce.idempotency_key
            and n.payload_hash = use_nonce.payload_hash
    );
end
$$;
comment on function phase2.use_nonce(text, text, text) is
'False when the nonce was seen within 10 minutes with another key or body; true for the byte-identical redelivery.';

create or replace function phase2.accept_event(
    event_key uuid,
    idempotency_key text,
    nonce text,
    payload_hash text,
    source text,
    ref text,
    event_type text,
    event_time timestamptz,
    payload text,
    queued boolean,
    out outcome text,
    out answer jsonb
)
language plpgsql
as $$
#variable_conflict use_column
declare
    known record;
    normal_ref text;
    to_the_second timestamptz := date_trunc('second', accept_event.event_time);
begin
    if not phase2.use_nonce(accept_event.nonce, accept_event.idempotency_key, accept_event.payload_hash) then
        outcome := 'NONCE_REUSED';
        return;
    end if;

    -- the log holds the ref that the booking will have: order and duplicates are decided by it
    normal_ref := rulebook.norm_ref(accept_event.ref);
    if normal_ref is null or length(normal_ref) > 128 then
        outcome := case when normal_ref is null then 'REF_BLANK' else 'REF_TOO_LONG' end;
        return;
    end if;

    answer := jsonb_build_object(
        'eventId', accept_event.event_key, 'processStatus', 'RECEIVED', 'idempotentReplay', false,
        'queued', accept_event.queued, 'processedInline', false
    );
    insert into phase2.ingest_keys (idempotency_key, payload_hash, event_key, answer)
    values (accept_event.idempotency_key, accept_event.payload_hash, accept_event.event_key, answer)
    on conflict (idempotency_key) do nothing;
    if not found then
        select k.payload_hash, k.answer into strict known
        from phase2.ingest_keys as k
        where k.idempotency_key = accept_event.idempotency_key;
        if known.payload_hash = accept_event.payload_hash then
            outcome := 'KNOWN';
            answer := known.answer;
        else
            outcome := 'KEY_REUSED';
            answer := null;
        end if;
        return;
    end if;

    insert into public.ingest_event_log (
        event_key, idempotency_key, nonce, source_enum, channel_code, external_booking_ref, event_type, event_time,
        event_time_normalized, payload_hash, signature_verified, process_status, raw_payload
    )
    values (
        accept_event.event_key, accept_event.idempotency_key, accept_event.nonce, accept_event.source,
        rulebook.booking_channel(accept_event.source), normal_ref, accept_event.event_type, accept_event.event_time,
        to_the_second, accept_event.payload_hash, true, 'RECEIVED', accept_event.payload::jsonb
    )
    on conflict do nothing;
    if found then
        outcome := 'ACCEPTED';
        return;
    end if;

    -- The event is there already: under another key, or under this one while what we remember of the key was lost.
    select
        e.event_key,
        e.idempotency_key = accept_event.idempotency_key and e.payload_hash <> accept_event.payload_hash as reused,
        coalesce(k.answer, accept_event.answer || jsonb_build_object('eventId', e.event_key)) as first_answer
    into strict known
    from public.ingest_event_log as e
    left join phase2.ingest_keys as k on e.idempotency_key = k.idempotency_key and e.event_key = k.event_key
    where
        e.idempotency_key = accept_event.idempotency_key
        or (
            e.source_enum = accept_event.source
            and e.external_booking_ref = normal_ref
            and e.event_type = accept_event.event_type
            and e.event_time_normalized = to_the_second
        )
    order by e.idempotency_key = accept_event.idempotency_key desc
    limit 1;
    if known.reused then
        delete from phase2.ingest_keys as k
        where k.idempotency_key = accept_event.idempotency_key;
        outcome := 'KEY_REUSED';
        answer := null;
        return;
    end if;
    update phase2.ingest_keys as k
    set event_key = known.event_key, answer = known.first_answer
    where k.idempotency_key = accept_event.idempotency_key;
    outcome := 'KNOWN';
    answer := known.first_answer;
end
$$;
comment on function phase2.accept_event(
    uuid, text, text, text, text, text, text, timestamptz, text, boolean
) is
'Outcome: ACCEPTED, KNOWN (with the first answer), NONCE_REUSED, KEY_REUSED, REF_BLANK or REF_TOO_LONG.';

-- The arguments of accept_event, an array each.
create or replace function phase2.accept_events(
    event_keys uuid[],
    idempotency_keys text[],
    nonces text[],
    payload_hashes text[],
    sources text[],
    refs text[],
    event_types text[],
    event_times timestamptz[],
    payloads text[],
    queued boolean[]
) returns table (outcome text, answer jsonb)
language plpgsql
as $$
begin
    perform pg_advisory_xact_lock(l.key)
    from (
        select hashtextextended('nonce ' || n.nonce, 0) as key from unnest(nonces) as n (nonce)
        union
        select hashtextextended('idempotency ' || i.idempotency_key, 0) as key
        from unnest(idempotency_keys) as i (idempotency_key)
        union
        select hashtextextended(
            concat_ws(
                ' ', 'event', e.source, e.event_type, extract(epoch from date_trunc('second', e.event_time)),
                rulebook.norm_ref(e.ref)
            ),
            0
        ) as key
        from unnest(sources, refs, event_types, event_times) as e (source, ref, event_type, event_time)
        order by key
    ) as l;

    return query
    select a.outcome, a.answer
    from unnest(
        event_keys, idempotency_keys, nonces, payload_hashes, sources, refs, event_types, event_times, payloads, queued
    ) with ordinality as e (
        event_key, idempotency_key, nonce, payload_hash, source, ref, event_type, event_time, payload, queued, place
    )
    cross join lateral phase2.accept_event(
        e.event_key, e.idempotency_key, e.nonce, e.payload_hash, e.source, e.ref, e.event_type, e.event_time,
        e.payload, e.queued
    ) as a
    order by e.place;
end
$$;
comment on function phase2.accept_events(
    uuid[], text[], text[], text[], text[], text[], text[], timestamptz[], text[], boolean[]
) is
'Each event in its turn, as accept_event answers: they share a round trip and a commit.';

-- What has served its time goes; rows that somebody holds wait for the next time.

create or replace function phase2.forget_nonces(most_rows integer) returns bigint
language sql
as $$
with old as (
    select n.nonce from phase2.ingest_nonces as n
    where n.seen_at < now() - interval '10 minutes'
    limit most_rows
    for update skip locked
),

gone as (
    delete from phase2.ingest_nonces as n using old where n.nonce = old.nonce
    returning 1
)

select count(*) from gone
$$;
comment on function phase2.forget_nonces(integer) is 'Removes at most so many nonces that matter no more; how many.';

create or replace function phase2.forget_answers(most_rows integer) returns bigint
language sql
as $$
with old as (
    select k.idempotency_key from phase2.ingest_keys as k
    where
        k.answered_at < now() - interval '35 days'
        and not exists (select 1 from public.ingest_event_log as e where e.event_key = k.event_key)
    limit most_rows
    for update skip locked
),

gone as (
    delete from phase2.ingest_keys as k using old where k.idempotency_key = old.idempotency_key
    returning 1
)

select count(*) from gone
$$;
comment on function phase2.forget_answers(integer) is
'Removes at most so many answers of 35 days ago, of events that the retention has taken; how many.';
