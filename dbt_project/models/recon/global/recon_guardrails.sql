-- Gates that guardrails measure too (G-03, G-05, G-06): of each the latest measurement, of the last 15 minutes. What is
-- too little to judge by is nothing to measure; what could not be measured, or was not, fails. Grain: one gate.
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
