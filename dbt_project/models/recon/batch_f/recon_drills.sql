-- Grain: one kind of drill that batch F requires, its latest: the four of ingest_contract 9, and a rollback; and the
-- latest rollback of each batch behind it that switches a path (G, H), as far as there was one in the last 30 days.
-- What it showed counts for so long; `problem` says why it is no evidence.
with required (drill, batch) as (
    values ('duplicate', 'F'), ('out_of_order', 'F'), ('burst', 'F'), ('replay', 'F'), ('rollback', 'F')
),

latest as (
    select distinct on (drill, coalesce(measured ->> 'batch', 'F'))
        drill,
        coalesce(measured ->> 'batch', 'F') as batch,
        drill_id,
        passed,
        measured,
        ended_at,
        (measured ->> 'seconds_to_old_path')::numeric as seconds
    from {{ source('phase2', 'drills') }}
    where coalesce(measured ->> 'batch', 'F') = 'F' or ended_at > now() - interval '30 days'
    order by drill asc, coalesce(measured ->> 'batch', 'F') asc, ended_at desc, drill_id desc
)

select
    coalesce(required.drill, latest.drill) as drill,
    latest.drill_id,
    latest.ended_at,
    latest.seconds,
    coalesce(required.drill, latest.drill || ' of ' || latest.batch) as name,
    case
        when latest.drill_id is null then 'NEVER_DONE'
        when not latest.passed then 'DRILL_FAILED'
        when latest.ended_at < now() - interval '30 days' then 'TOO_OLD'
        when
            required.drill = 'replay' and coalesce((latest.measured ->> 'audit_rows')::integer, 0) = 0
            then 'NO_AUDIT_ROWS'
        when latest.drill = 'rollback' and latest.seconds is null then 'NOT_MEASURED'
    end as problem
from required
full join latest on required.drill = latest.drill and required.batch = latest.batch
