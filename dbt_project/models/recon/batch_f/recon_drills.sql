-- Grain: one kind of drill, its latest: those that batch F requires (the four of ingest_contract 9, and a rollback), and
-- rollbacks of later batches, where one was measured. What it showed counts for 30 days; `problem` says why it is no
-- evidence.
with named as (
    select
        case when measured ->> 'batch' <> 'F' then concat(drill, ' of ', measured ->> 'batch') else drill end as drill,
        drill_id,
        passed,
        measured,
        ended_at,
        (measured ->> 'seconds_to_old_path')::numeric as seconds
    from {{ source('phase2', 'drills') }}
),

latest as (
    select distinct on (drill) *
    from named
    order by drill asc, ended_at desc, drill_id desc
),

required (drill) as (
    values ('duplicate'), ('out_of_order'), ('burst'), ('replay'), ('rollback')

    union all

    select drill from latest
    where drill like 'rollback of %' and seconds is not null
)

select
    required.drill,
    latest.drill_id,
    latest.ended_at,
    latest.seconds,
    case
        when latest.drill_id is null then 'NEVER_DONE'
        when not latest.passed then 'DRILL_FAILED'
        when latest.ended_at < now() - interval '30 days' then 'TOO_OLD'
        when
            required.drill = 'replay' and coalesce((latest.measured ->> 'audit_rows')::integer, 0) = 0
            then 'NO_AUDIT_ROWS'
        when required.drill = 'rollback' and latest.seconds is null then 'NOT_MEASURED'
    end as problem
from required
left join latest on required.drill = latest.drill
