-- What the verdict of batch H reads: measures, exceptions, parity and findings, in one reading of the database.
with{{ recon_global_ctes(['C', 'D', 'E']) }},

-- the last comparison of both sides; an older one says nothing of the hour
latest_check as (
    select
        checked,
        mismatched,
        detail,
        window_from,
        window_to
    from {{ source('phase2', 'write_checks') }}
    where checked_at > now() - interval '2 hours'
    order by checked_at desc
    limit 1
),

open_conflicts as materialized (
    select * from {{ source('phase2', 'conflicts') }}
    where status = 'OPEN'
),

disputed as (
    select
        booking_key,
        string_agg(rule, ', ' order by rule) as rules,
        jsonb_agg(
            jsonb_build_object('conflict_id', conflict_id, 'severity', severity, 'due_at', due_at) order by rule
        ) as detail
    from open_conflicts
    group by booking_key
),

differing as (
    select b.booking_key
    from latest_check as k
    cross join lateral jsonb_array_elements_text(k.detail -> 'bookings') as b (booking_key)
),

-- an hour after it was accepted; one of a switched-off flag is not a dual one, and what is frozen waits for a person
open_writes as (
    select
        i.intent_id,
        i.booking_key,
        i.core_status,
        i.legacy_status
    from {{ source('phase2', 'write_intents') }} as i
    where
        i.accepted_at < now() - interval '1 hour'
        and (
            i.legacy_status = 'PENDING'
            or i.core_status = 'PENDING'
            or (i.core_status = 'BEHIND' and i.mode = 'DUAL')
        )
        and not exists (
            select 1 from open_conflicts as c
            where c.freezes and c.booking_key = i.booking_key
        )
),

-- accepted, and neither applied nor on its way nor among the dead letters
buried_nowhere as (
    select
        e.event_key,
        e.channel_code,
        'LOST' as status
    from {{ source('bridge', 'ingest_event_log') }} as e
    left join {{ source('bridge', 'ingest_dead_letter') }} as d on e.event_key = d.event_key
    where
        e.process_status = 'FAILED' and e.next_retry_at is null and d.event_key is null
        -- from then on retention may have taken the dead letter (091)
        and e.created_at > now() - interval '30 days'
),

-- the first of each booking that is on its way; the others wait for it
next_events as (
    select distinct on (e.source_enum, e.external_booking_ref)
        e.event_key,
        e.channel_code,
        e.external_booking_ref,
        e.created_at,
        e.next_retry_at
    from {{ source('bridge', 'ingest_event_log') }} as e
    where phase2.is_pending(e.process_status, e.next_retry_at)
    order by e.source_enum asc, e.external_booking_ref asc, e.created_at asc, e.event_key asc
),

-- due for an hour while the queue is on, and nobody takes it; what is frozen waits for a person
forgotten as (
    select
        n.event_key,
        n.channel_code,
        'NOT_PROCESSED' as status
    from next_events as n
    inner join {{ source('phase2', 'flags') }} as f on f.flag = 'INGEST_QUEUE_ENABLED' and f.enabled
    left join lateral (
        select max(e.processed_at) as at
        from {{ source('bridge', 'ingest_event_log') }} as e
        where e.channel_code = n.channel_code and e.external_booking_ref = n.external_booking_ref
    ) as before_it on true
    left join {{ source('bridge', 'booking_core') }} as c
        on n.channel_code = c.channel_code and n.external_booking_ref = c.external_booking_ref
    where
        greatest(n.next_retry_at, n.created_at, before_it.at, f.changed_at) < now() - interval '1 hour'
        and not exists (
            select 1 from open_conflicts as k
            where k.freezes and k.booking_key = c.booking_key
        )
),

-- answered with 202, and gone from the log before its time; the event's key says when it came
unlogged_answers as (
    select distinct
        k.event_key,
        null as channel_code,
        'NOT_IN_THE_LOG' as status
    from {{ source('phase2', 'ingest_keys') }} as k
    left join {{ source('bridge', 'ingest_event_log') }} as e on k.event_key = e.event_key
    where
        e.event_key is null
        and to_timestamp(('x' || left(replace(k.event_key::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
        > now() - interval '34 days'
),

lost_events as (
    select * from buried_nowhere
    union all
    select * from forgotten
    union all
    select * from unlogged_answers
),

-- emitted, and not in the log: only a run can compare that with the sources, and each hour does
looked as (
    select
        item,
        passed,
        detail,
        recorded_at
    from {{ ref('recon_gate_inputs') }}
    where gate_id = 'H-02'
),

unlogged as (
    select
        item,
        'NOT_IN_THE_LOG' as status,
        detail
    from looked
    where not passed

    union all

    select
        'the emitters' as item,
        'NOT_COMPARED' as status,
        jsonb_build_object('last', max(recorded_at)) as detail
    from looked
    having coalesce(max(recorded_at) < now() - interval '2 hours', true)
),

rehearsal as (
    select
        drill_id,
        ended_at,
        case
            when not passed then 'DRILL_FAILED'
            when ended_at < now() - interval '30 days' then 'TOO_OLD'
            when measured ->> 'seconds_to_old_path' is null then 'NOT_MEASURED'
        end as problem
    from {{ source('phase2', 'drills') }}
    where drill = 'rollback' and measured ->> 'batch' = 'H'
    order by ended_at desc, drill_id desc
    limit 1
),

log as (
    select count(*) as events from {{ source('bridge', 'ingest_event_log') }}
),

guardrails as materialized (
    select * from {{ ref('recon_guardrails') }}
),

measured as (
    select
        'H-01' as gate_id,
        -- nobody has compared: no hour without a word passes
        coalesce((select k.mismatched from latest_check as k), 1) as numerator,
        coalesce((select k.checked from latest_check as k), 0) as denominator,
        case
            when exists (select 1 from latest_check)
                then coalesce((select k.mismatched::numeric / nullif(k.checked, 0) from latest_check as k), 0)
        end as value,
        (
            select jsonb_build_object('window_from', k.window_from, 'window_to', k.window_to) from latest_check as k
        ) as detail

    union all

    select
        'H-02' as gate_id,
        l.events + w.writes + u.items as numerator,
        log.events + i.items as denominator,
        l.events + w.writes + u.items as value,
        jsonb_build_object('open_writes', w.writes, 'emitted', i.emitted) as detail
    from log
    cross join (select count(*) as events from lost_events) as l
    cross join (select count(*) as writes from open_writes) as w
    cross join (select count(*) as items from unlogged) as u
    cross join (
        select
            count(*) as items,
            sum((detail ->> 'compared')::bigint) as emitted
        from looked
    ) as i

    union all

    select
        'H-03' as gate_id,
        count(*) filter (where detected_at < now() - interval '24 hours') as numerator,
        count(*) as denominator,
        count(*) filter (where detected_at < now() - interval '24 hours') as value,
        null as detail
    from open_conflicts

    union all

    select
        'H-04' as gate_id,
        count(*) filter (where problem is null) as numerator,
        count(*) as denominator,
        count(*) filter (where problem is null) as value,
        null as detail
    from rehearsal

    union all

    select
        gate_id,
        numerator,
        denominator,
        value,
        detail
    from guardrails
),

exceptions as (
    -- the check's own, as it found them; what is open beside them is listed apart
    select
        'H-01' as gate_id,
        'booking' as entity,
        coalesce(b.booking_key, d.booking_key::text) as key,
        coalesce(d.rules, 'NOT_ENDED') as status,
        b.booking_key is not null as is_counted,
        d.detail
    from differing as b
    full join disputed as d on b.booking_key = d.booking_key::text

    union all

    select
        'H-01' as gate_id,
        'check' as entity,
        'the last two hours' as key,
        'NOT_COMPARED' as status,
        true as is_counted,
        null as detail
    where not exists (select 1 from latest_check)

    union all

    select
        'H-02' as gate_id,
        'event' as entity,
        event_key::text as key,
        status,
        true as is_counted,
        jsonb_build_object('channel_code', channel_code) as detail
    from lost_events

    union all

    select
        'H-02' as gate_id,
        'write' as entity,
        intent_id::text as key,
        'NOT_ENDED' as status,
        true as is_counted,
        jsonb_build_object('booking_key', booking_key, 'core', core_status, 'legacy', legacy_status) as detail
    from open_writes

    union all

    select
        'H-02' as gate_id,
        'event' as entity,
        item as key,
        status,
        true as is_counted,
        detail
    from unlogged

    union all

    select
        'H-03' as gate_id,
        'conflict' as entity,
        conflict_id::text as key,
        rule as status,
        true as is_counted,
        jsonb_build_object('booking_key', booking_key, 'severity', severity, 'detected_at', detected_at) as detail
    from open_conflicts
    where detected_at < now() - interval '24 hours'

    union all

    select
        'H-04' as gate_id,
        'drill' as entity,
        drill_id::text as key,
        problem as status,
        true as is_counted,
        jsonb_build_object('ended_at', ended_at) as detail
    from rehearsal
    where problem is not null

    union all

    select
        gate_id,
        'guardrail' as entity,
        guardrail as key,
        status,
        true as is_counted,
        detail
    from guardrails
    where numerator > 0
)

{{ recon_measure_rows('measured') }}

union all

{{ recon_exception_rows('exceptions') }}

union all

{{ recon_global_rows() }}
