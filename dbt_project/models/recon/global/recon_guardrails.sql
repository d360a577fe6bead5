-- Gates that guardrails measure too (G-03, G-05, G-06): of each the latest measurement, of the last 15 minutes. What is
-- too little to judge by is nothing to measure; what could not be measured, or was not, fails. And G-07, which the
-- pictures of the latest UI check measure. Grain: one gate.
with latest as (
    select distinct on (guardrail)
        guardrail,
        at,
        status,
        value,
        denominator,
        words
    from {{ source('phase2', 'guardrail_log') }}
    where at > now() - interval '15 minutes'
    order by guardrail asc, at desc
),

gates as (
    select *
    from (
        values
        ('G-03', 'api-5xx'),
        ('G-05', 'public-booking-success'),
        ('G-06', 'payment-mismatch')
    ) as g (gate_id, guardrail)
)

select
    gates.gate_id,
    gates.guardrail,
    case when latest.status = 'OK' or latest.status = 'TOO_LITTLE' then 0 else 1 end as numerator,
    case when latest.status in ('OK', 'BREACH') then latest.denominator else 0 end as denominator,
    case when latest.status in ('OK', 'BREACH') then latest.value end as value,
    coalesce(latest.status, 'NOT_MEASURED') as status,
    jsonb_build_object('measured_at', latest.at, 'words', latest.words) as detail
from gates
left join latest on gates.guardrail = latest.guardrail

union all

select
    'G-07' as gate_id,
    'ui' as guardrail,
    case when count(i.item) = 0 or bool_or(not i.passed) then 1 else 0 end as numerator,
    count(i.item) as denominator,
    case when count(i.item) > 0 then count(*) filter (where not i.passed) end as value,
    case
        when count(i.item) = 0 then 'NOT_MEASURED'
        when bool_or(not i.passed) then 'DRIFTED'
        else 'OK'
    end as status,
    jsonb_build_object('drifted', jsonb_agg(i.item) filter (where not i.passed)) as detail
from {{ ref('recon_gate_inputs') }} as i
where i.gate_id = 'G-07'
