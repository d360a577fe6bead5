-- What the guardrails measure and remember (blueprint 8; docs/guardrails.md). Idempotent, run at every start.
--
-- Each measure takes the moments that it is asked for: now, or every hour of a month that is played through.

create table if not exists phase2.api_minutes (
    minute timestamptz not null,
    instance uuid not null,
    part text not null,
    requests integer not null,
    server_errors integer not null,
    constraint api_minutes_pkey primary key (minute, instance, part),
    constraint api_minutes_part check (part in ('ingest', 'reads', 'writes'))
);
comment on table phase2.api_minutes is
'Answers of each process of the core API on the core path, by minute; rows without a request say that it was alive.';
comment on column phase2.api_minutes.server_errors is
'Answers from 500 on, but for those that say that a flag is off.';

create table if not exists phase2.queue_minutes (
    minute timestamptz not null,
    pending bigint not null,
    oldest_seconds numeric not null,
    constraint queue_minutes_pkey primary key (minute)
);
comment on table phase2.queue_minutes is
'How far ingestion was behind, at its worst in each minute; a minute without a row was looked at by nobody.';

create table if not exists phase2.guardrail_log (
    guardrail text not null,
    at timestamptz not null,
    status text not null,
    value numeric,
    threshold numeric not null,
    numerator numeric,
    denominator numeric,
    batch text,
    words text not null,
    detail jsonb not null default '{}',
    constraint guardrail_log_pkey primary key (guardrail, at),
    constraint guardrail_log_status check (status in ('OK', 'BREACH', 'TOO_LITTLE', 'NOT_MEASURED'))
);
create index if not exists ix_guardrail_log_at on phase2.guardrail_log (at);
comment on table phase2.guardrail_log is
'Every measurement of every guardrail, for 90 days (what a breach listed: for good): the gates G-03, G-05 and G-06 '
'read the latest.';
comment on column phase2.guardrail_log.status is
'TOO_LITTLE: there is nothing to judge by, or too little to tell it from chance.';

create or replace function phase2.guardrail_api(moments timestamptz[], since timestamptz)
returns table (at timestamptz, part text, heard bigint, requests bigint, server_errors bigint)
language sql stable
as $$
    select
        m.at,
        p.part,
        count(a.minute) filter (where a.minute > m.at - interval '5 minutes'),
        coalesce(sum(a.requests), 0)::bigint,
        coalesce(sum(a.server_errors), 0)::bigint
    from unnest(moments) as m (at)
    cross join (values ('ingest'), ('reads'), ('writes')) as p (part)
    left join phase2.api_minutes as a
        on
            a.minute > m.at - interval '15 minutes' and a.minute <= m.at and a.minute >= date_trunc('minute', since)
            and a.part = p.part
    group by m.at, p.part
    order by m.at, p.part
$$;
comment on function phase2.guardrail_api(timestamptz[], timestamptz) is
'The core path in the 15 minutes up to each moment, as far as they lie after `since`; heard: minutes of processes in '
'the last 5.';

create or replace function phase2.guardrail_dead_letters(moments timestamptz[], since timestamptz)
returns table (at timestamptz, came bigint, went bigint, decreased boolean)
language sql stable
as $$
    with quarters as (
        select
            m.at,
            q.ended,
            count(d.dead_letter_key) filter (where d.first_failed_at > q.began and d.first_failed_at <= q.ended) as came,
            count(d.dead_letter_key) filter (
                where d.status in ('SUCCEEDED', 'RESOLVED', 'CLOSED') and d.updated_at > q.began and d.updated_at <= q.ended
            ) as went
        from unnest(moments) as m (at)
        cross join lateral (
            select
                greatest(m.at - n * interval '15 minutes', since) as began,
                m.at - (n - 1) * interval '15 minutes' as ended
            from generate_series(1, 4) as n
        ) as q
        left join public.ingest_dead_letter as d
            on
                (d.first_failed_at > q.began and d.first_failed_at <= q.ended)
                or (d.updated_at > q.began and d.updated_at <= q.ended)
        group by m.at, q.ended
    )

    select
        q.at,
        sum(q.came)::bigint,
        sum(q.went)::bigint,
        coalesce(bool_or(q.went > q.came) filter (where q.ended = q.at), false)
    from quarters as q
    group by q.at
$$;
comment on function phase2.guardrail_dead_letters(timestamptz[], timestamptz) is
'Events that became dead letters, and those that left them, in the hour up to each moment after `since`; decreased: in '
'its last quarter more left than came.';

drop function if exists phase2.guardrail_bookings(jsonb, timestamptz[], timestamptz);
create or replace function phase2.guardrail_bookings(groups jsonb, moments timestamptz[], since timestamptz)
returns table (
    at timestamptz,
    hours integer,
    bookings bigint,
    failed bigint,
    baseline bigint,
    baseline_failed bigint,
    quietest bigint
)
language sql stable
as $$
    with judged as materialized (
        select
            (g ->> 'at')::timestamptz as made_at,
            (g ->> 'bookings')::bigint as bookings,
            not (
                rulebook.balisnap_says_paid(g ->> 'v2', g ->> 'status')
                or coalesce(rulebook.status_word(g ->> 'v2', g ->> 'status') = 'refunded', false)
                or exists (
                    select 1 from jsonb_array_elements(g -> 'payments') as p
                    where rulebook.payment_status(p ->> 0, p ->> 1) in ('PAID', 'REFUNDED', 'PARTIALLY_REFUNDED')
                )
            ) as has_failed
        from jsonb_array_elements(groups) as g
    ),

    counted as (
        select
            m.at,
            w.hours,
            w.ended,
            w.began = m.at - w.hours * interval '1 hour' as is_whole,
            coalesce(sum(j.bookings) filter (where j.made_at > w.began), 0)::bigint as bookings,
            coalesce(sum(j.bookings) filter (where j.made_at > w.began and j.has_failed), 0)::bigint as failed,
            coalesce(sum(j.bookings) filter (where j.made_at <= w.ended), 0)::bigint as baseline,
            coalesce(sum(j.bookings) filter (where j.made_at <= w.ended and j.has_failed), 0)::bigint as baseline_failed
        from unnest(moments) as m (at)
        cross join lateral (
            select
                h.hours,
                greatest(m.at - h.hours * interval '1 hour', since) as began,
                m.at - greatest(h.hours, 24) * interval '1 hour' as ended
            from (values (1), (24), (72)) as h (hours)
        ) as w
        left join judged as j on j.made_at > w.ended - interval '7 days' and j.made_at <= m.at
        group by m.at, w.hours, w.began, w.ended
    )

    select
        c.at,
        c.hours,
        c.bookings,
        c.failed,
        c.baseline,
        c.baseline_failed,
        case when c.bookings = 0 and c.is_whole then (
            select min(t.bookings)
            from (
                select coalesce(sum(j.bookings), 0)::bigint as bookings
                -- as many as the seven days hold, each a day before the other
                from generate_series(0, 7 - greatest(c.hours, 24) / 24) as d (ago)
                left join judged as j
                    on
                        j.made_at > c.ended - d.ago * interval '1 day' - c.hours * interval '1 hour'
                        and j.made_at <= c.ended - d.ago * interval '1 day'
                group by d.ago
            ) as t
        ) else 0 end
    from counted as c
$$;
comment on function phase2.guardrail_bookings(jsonb, timestamptz[], timestamptz) is
'Of groups of balisnap''s bookings (time, statuses, how many) those of the hour, the day and the three days up to each '
'moment, as far as they lie after `since`, and of the seven days before these; failed: neither paid nor ever captured; '
'quietest, of one without bookings: the least that as long a time of those days had, at the same hours; 0 where '
'`since` cuts it short.';

drop function if exists phase2.guardrail_payments(timestamptz, timestamptz);
create or replace function phase2.guardrail_payments(moments timestamptz[], since timestamptz)
returns table (at timestamptz, sampled bigint, mismatched uuid[])
language sql stable
as $$
    with found as materialized (
        select distinct coalesce(p.booking_key, l.key) as booking_key
        from dbt_recon.recon_payment_linkage as l
        left join public.payment_event as p on l.entity = 'payment' and p.payment_key = l.key
    )

    select
        m.at,
        count(s.booking_key),
        coalesce(array_agg(f.booking_key order by f.booking_key) filter (where f.booking_key is not null), '{}')
    from unnest(moments) as m (at)
    -- the keys are hashes: those after one that the day names are as good as drawn, and anybody can draw them again
    left join lateral (
        select c.booking_key from public.booking_core as c
        where c.updated_at > greatest(m.at - interval '1 day', since) and c.updated_at <= m.at
        order by c.booking_key < md5((m.at at time zone 'UTC')::date::text)::uuid, c.booking_key
        limit 1000
    ) as s on true
    left join found as f on s.booking_key = f.booking_key
    group by m.at
$$;
comment on function phase2.guardrail_payments(timestamptz[], timestamptz) is
'Of the bookings that changed in the day up to each moment, after `since`, at most 1,000, and those of them that '
'payments contradict.';

create or replace function phase2.guardrail_lost()
returns table (what text, key uuid)
language sql stable
as $$
    -- tried, not to be tried again, and not among the dead letters
    select 'event', e.event_key
    from public.ingest_event_log as e
    where
        e.process_status = 'FAILED' and e.next_retry_at is null
        and e.created_at > now() - interval '30 days' -- from then on retention may have taken the dead letter
        and not exists (select 1 from public.ingest_dead_letter as d where d.event_key = e.event_key)

    union all

    -- answered with 202, and gone from the log before its time; the event's key says when it came
    select distinct 'event', k.event_key
    from phase2.ingest_keys as k
    left join public.ingest_event_log as e on k.event_key = e.event_key
    where
        e.event_key is null
        and to_timestamp(('x' || left(replace(k.event_key::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
        > now() - interval '34 days'

    union all

    -- accepted by the core API an hour ago, and not ended on both sides; what is frozen waits for a person
    select 'write', i.intent_id
    from phase2.write_intents as i
    where
        i.accepted_at < now() - interval '1 hour'
        and (
            i.legacy_status = 'PENDING' or i.core_status = 'PENDING'
            or (i.core_status = 'BEHIND' and i.mode = 'DUAL')
        )
        and not phase2.is_frozen(i.booking_key)
$$;
comment on function phase2.guardrail_lost() is 'Events and writes that are lost.';
