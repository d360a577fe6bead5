-- What the verdict of batch G reads of the cutover of reads (BG-01 to BG-04), and the global gates. A comparison
-- of other rows than those that are landed now, or one whose rows are gone, measures nothing: BG-01 fails.
with{{ recon_global_ctes(['C', 'D', 'E']) }},

landed as (
    select jsonb_object_agg(l.source, l.landing_no) as numbers
    from (
        select distinct on (source)
            source,
            landing_no
        from {{ source('phase2', 'landing_runs') }}
        order by source asc, landing_no desc
    ) as l
),

parity_run as (
    select *
    from {{ source('phase2', 'parity_runs') }}
    order by ended_at desc
    limit 1
),

compared as materialized (
    select
        id,
        status
    from {{ source('phase2', 'parity_bookings') }}
    where status in ('DIFFERENT', 'MISSING', 'SURPLUS')
),

-- reads since the switch, of the 15 minutes up to the newest
answers as materialized (
    select
        r.minute,
        r.instance,
        r.read_name,
        r.side,
        r.why,
        r.server_error,
        sum(r.reads) as reads
    from {{ source('phase2', 'ops_reads') }} as r
    where
        r.minute > (select max(n.minute) from {{ source('phase2', 'ops_reads') }} as n) - interval '15 minutes'
        and r.minute >= coalesce(
            (
                select date_trunc('minute', f.changed_at) from {{ source('phase2', 'flags') }} as f
                where f.flag = 'OPS_READ_NEW_MODEL_ENABLED'
            ),
            '-infinity'
        )
    group by r.minute, r.instance, r.read_name, r.side, r.why, r.server_error
),

critical as (
    select
        incident_id,
        kind,
        opened_at,
        closed_at is null as is_open
    from {{ source('phase2', 'incidents') }}
    where severity = 'critical'
),

latency as materialized (
    select
        l.*,
        coalesce(not l.is_enough or l.ratio > g.threshold, true) as is_failing
    from {{ ref('recon_read_latency') }} as l
    inner join {{ ref('gate_registry') }} as g on g.gate_id = 'BG-04'
),

guardrails as materialized (
    select * from {{ ref('recon_guardrails') }}
),

measured as (
    select
        'BG-01' as gate_id,
        (select count(*) from compared) as numerator,
        p.bookings + p.surplus as denominator,
        case
            when
                p.landed = l.numbers
                and (select count(*) from {{ source('phase2', 'parity_bookings') }}) = p.bookings + p.surplus
                then (select count(*) from compared)::numeric / nullif(p.bookings + p.surplus, 0)
        end as value,
        jsonb_build_object('explained', p.explained, 'compared_at', p.ended_at) as detail
    from parity_run as p
    cross join landed as l

    union all

    select
        'BG-02' as gate_id,
        coalesce(sum(reads) filter (where server_error), 0) as numerator,
        coalesce(sum(reads), 0) as denominator,
        coalesce(sum(reads) filter (where server_error), 0) / nullif(sum(reads), 0) as value,
        jsonb_build_object(
            'by_the_read_model', coalesce(sum(reads) filter (where side = 'new'), 0),
            'by_bstadmin_instead', coalesce(sum(reads) filter (where why <> 'flag'), 0)
        ) as detail
    from answers

    union all

    select
        'BG-03' as gate_id,
        count(*) filter (where is_open) as numerator,
        count(*) as denominator,
        count(*) filter (where is_open) as value,
        null as detail
    from critical

    union all

    select
        'BG-04' as gate_id,
        count(*) filter (where is_failing) as numerator,
        count(*) as denominator,
        case when bool_and(is_enough) then max(ratio) end as value,
        jsonb_object_agg(read_name, round(ratio, 3)) as detail
    from latency

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
        'BG-01' as gate_id,
        'booking' as entity,
        id as key,
        status,
        true as is_counted,
        null::jsonb as detail
    from compared

    union all

    select
        'BG-02' as gate_id,
        'read' as entity,
        concat_ws(' ', a.minute, a.instance, a.read_name, a.side, a.why, n) as key,
        'SERVER_ERROR' as status,
        true as is_counted,
        null as detail
    from answers as a
    cross join lateral generate_series(1, a.reads) as n
    where a.server_error

    union all

    select
        'BG-03' as gate_id,
        kind as entity,
        incident_id::text as key,
        'OPEN' as status,
        true as is_counted,
        jsonb_build_object('opened_at', opened_at) as detail
    from critical
    where is_open

    union all

    select
        'BG-04' as gate_id,
        'read' as entity,
        read_name as key,
        case when is_enough then 'SLOW' else 'TOO_FEW' end as status,
        true as is_counted,
        jsonb_build_object('pairs', pairs, 'new_p95', new_p95, 'legacy_p95', legacy_p95) as detail
    from latency
    where is_failing

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
