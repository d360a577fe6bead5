-- What the verdict of batch F reads: measures, exceptions, parity and findings, in one reading of the database. The
-- limits of the latencies come from the registry, to list what is over them.
with{{ recon_global_ctes(['C', 'D', 'E']) }},

limits as (
    select
        gate_id,
        threshold
    from {{ ref('gate_registry') }}
    where batch = 'F'
),

inputs as materialized (
    select * from {{ ref('recon_gate_inputs') }}
    where gate_id = 'F-00'
),

events as materialized (
    select * from {{ ref('recon_ingest_hour') }}
),

letters as materialized (
    select * from {{ ref('recon_dead_letter_growth') }}
),

second_rows as materialized (
    select * from {{ ref('recon_second_rows') }}
),

rules as materialized (
    select * from {{ ref('recon_retention') }}
),

drills as materialized (
    select * from {{ ref('recon_drills') }}
),

-- of each gate one row a thing that it looks at; `is_failing` are its exceptions
looked_at as (
    select
        'F-00' as gate_id,
        'item' as entity,
        item as key,
        not passed as is_failing,
        'NOT_AS_IT_MUST_BE' as status,
        detail
    from inputs

    union all

    select
        'F-01' as gate_id,
        'event' as entity,
        event_key::text as key,
        not is_done as is_failing,
        'FAILED' as status,
        jsonb_build_object('channel_code', channel_code) as detail
    from events
    where has_ended

    union all

    select
        limits.gate_id,
        'event' as entity,
        events.event_key::text as key,
        events.seconds > limits.threshold as is_failing,
        case when events.is_done then 'SLOW' else 'STILL_WAITING' end as status,
        jsonb_build_object('channel_code', events.channel_code, 'seconds', round(events.seconds, 3)) as detail
    from events
    inner join limits on limits.gate_id in ('F-02', 'F-02-P95')
    where not events.has_dead_letter

    union all

    select
        'F-05' as gate_id,
        'rule' as entity,
        rule as key,
        is_overdue as is_failing,
        status,
        detail
    from rules

    union all

    select
        'F-06' as gate_id,
        'drill' as entity,
        drill as key,
        problem is not null as is_failing,
        problem as status,
        jsonb_build_object('drill_id', drill_id, 'ended_at', ended_at) as detail
    from drills
    where drill <> 'rollback'

    union all

    select
        'G-04' as gate_id,
        'drill' as entity,
        drills.name as key,
        drills.problem is not null or drills.seconds > limits.threshold as is_failing,
        coalesce(drills.problem, 'TOO_SLOW') as status,
        jsonb_build_object(
            'drill_id', drills.drill_id, 'ended_at', drills.ended_at, 'seconds', drills.seconds
        ) as detail
    from drills
    inner join limits on limits.gate_id = 'G-04'
    where drills.drill = 'rollback'
),

counted as (
    select
        limits.gate_id,
        count(l.gate_id) filter (where l.is_failing) as failing,
        count(l.gate_id) filter (where not l.is_failing) as holding,
        count(l.gate_id) as rows
    from limits
    left join looked_at as l on limits.gate_id = l.gate_id
    where limits.gate_id not in ('F-03', 'F-04', 'G-03', 'G-05', 'G-06')
    group by limits.gate_id
),

latency as (
    select
        percentile_cont(0.5) within group (order by seconds)::numeric as median,
        percentile_cont(0.95) within group (order by seconds)::numeric as p95
    from events
    where not has_dead_letter
),

growth as (
    select
        count(*) as rows,
        coalesce(max(in_its_hour), 0) as worst_hour,
        min(peak_at) as peak_at
    from letters
),

log as (
    select count(*) as rows from {{ source('bridge', 'ingest_event_log') }}
),

guardrails as materialized (
    select * from {{ ref('recon_guardrails') }}
    where gate_id <> 'G-07'
),

measured as (
    select
        c.gate_id,
        case when c.gate_id = 'F-01' then c.holding else c.failing end as numerator,
        c.rows as denominator,
        case
            when c.gate_id = 'F-01' then c.holding::numeric / nullif(c.rows, 0)
            when c.gate_id = 'F-02' then l.median
            when c.gate_id = 'F-02-P95' then l.p95
            when c.gate_id = 'G-04' then r.seconds
            else c.failing
        end as value,
        null::jsonb as detail
    from counted as c
    cross join latency as l
    cross join (
        select case when bool_and(problem is null) then max(seconds) end as seconds
        from drills
        where drill = 'rollback'
    ) as r

    union all

    select
        'F-03' as gate_id,
        g.rows as numerator,
        log.rows as denominator,
        g.worst_hour as value,
        jsonb_build_object('peak_at', g.peak_at) as detail
    from growth as g
    cross join log

    union all

    select
        'F-04' as gate_id,
        (select count(*) from second_rows) as numerator,
        log.rows as denominator,
        (select count(*) from second_rows) as value,
        null as detail
    from log

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
    select
        gate_id,
        entity,
        key,
        status,
        true as is_counted,
        detail
    from looked_at
    where is_failing

    union all

    select
        'F-03' as gate_id,
        'dead letter' as entity,
        dead_letter_key::text as key,
        reason_code as status,
        true as is_counted,
        jsonb_build_object('event_key', event_key, 'first_failed_at', first_failed_at) as detail
    from letters

    union all

    select
        'F-04' as gate_id,
        'event' as entity,
        event_key::text as key,
        status,
        true as is_counted,
        jsonb_build_object('channel_code', channel_code) as detail
    from second_rows

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
