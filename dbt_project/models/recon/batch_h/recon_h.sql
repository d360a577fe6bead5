-- What the verdict of batch H reads: measures, exceptions, parity and findings, in one reading of the database.
with{{ recon_global_ctes(['C', 'D', 'E']) }},

-- the last comparison of both sides; an older one says nothing of the hour
latest_check as (
    select
        checked,
        mismatched,
        window_from,
        window_to
    from {{ source('phase2', 'write_checks') }}
    where checked_at > now() - interval '2 hours'
    order by window_to desc
    limit 1
),

open_conflicts as materialized (
    select * from {{ source('phase2', 'conflicts') }}
    where status = 'OPEN'
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
lost_events as (
    select
        e.event_key,
        e.channel_code,
        e.process_status
    from {{ source('bridge', 'ingest_event_log') }} as e
    left join {{ source('bridge', 'ingest_dead_letter') }} as d on e.event_key = d.event_key
    where e.process_status = 'FAILED' and e.next_retry_at is null and d.event_key is null
),

-- emitted, and not in the log: only a run can compare that with the sources
unlogged as (
    select * from {{ ref('recon_gate_inputs') }}
    where gate_id = 'H-02'
),

rehearsal as (
    select
        drill_id,
        passed,
        ended_at
    from {{ source('phase2', 'drills') }}
    where drill = 'rollback' and measured ->> 'batch' = 'H'
    order by ended_at desc, drill_id desc
    limit 1
),

log as (
    select count(*) as events from {{ source('bridge', 'ingest_event_log') }}
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
        log.events as denominator,
        l.events + w.writes + u.items as value,
        jsonb_build_object('open_writes', w.writes) as detail
    from log
    cross join (select count(*) as events from lost_events) as l
    cross join (select count(*) as writes from open_writes) as w
    cross join (
        select count(*) as items from unlogged
        where not passed
    ) as u

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
        count(*) filter (where passed) as numerator,
        count(*) as denominator,
        count(*) filter (where passed) as value,
        null as detail
    from rehearsal
),

exceptions as (
    select
        'H-01' as gate_id,
        'booking' as entity,
        booking_key::text as key,
        rule as status,
        false as is_counted,
        jsonb_build_object('conflict_id', conflict_id, 'severity', severity, 'due_at', due_at) as detail
    from open_conflicts

    union all

    select
        'H-02' as gate_id,
        'event' as entity,
        event_key::text as key,
        'LOST' as status,
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
        'NOT_IN_THE_LOG' as status,
        true as is_counted,
        detail
    from unlogged
    where not passed

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
        'DRILL_FAILED' as status,
        true as is_counted,
        jsonb_build_object('ended_at', ended_at) as detail
    from rehearsal
    where not passed
)

{{ recon_measure_rows('measured') }}

union all

{{ recon_exception_rows('exceptions') }}

union all

{{ recon_global_rows() }}
