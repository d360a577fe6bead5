-- Grain: one statement of the legacy applications in the latest run that ran any: did it work before and after?
with latest as (
    select run_id
    from {{ source('phase2', 'legacy_query_results') }}
    order by legacy_query_result_id desc
    limit 1
)

select
    results.source,
    results.query_name,
    coalesce(bool_and(results.succeeded) filter (where results.phase = 'BEFORE'), false) as before,
    coalesce(bool_and(results.succeeded) filter (where results.phase = 'AFTER'), false) as after,
    max(results.error_message) as error_message
from {{ source('phase2', 'legacy_query_results') }} as results
inner join latest on results.run_id = latest.run_id
group by results.source, results.query_name
