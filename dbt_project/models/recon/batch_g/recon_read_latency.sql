-- The main reads on both sides: each pair is one request that both answered, in the day up to the newest of them.
-- Nobody sees 20 ms, and below them a ratio is mostly noise: for the ratio whatever took less took so long.
with pairs as (
    select
        read_name,
        case served_by when 'new' then served_seconds else shadow_seconds end as new_seconds,
        case served_by when 'new' then shadow_seconds else served_seconds end as legacy_seconds
    from {{ source('phase2', 'shadow_reads') }}
    where
        kind = 'shadow' and outcome <> 'failed'
        and compared_at > (
            select max(r.compared_at) from {{ source('phase2', 'shadow_reads') }} as r
        ) - interval '1 day'
)

select
    p.*,
    greatest(p.new_p95, 0.02) / greatest(p.legacy_p95, 0.02) as ratio
from (
    select
        main.read_name,
        count(pairs.read_name) as pairs,
        percentile_cont(0.95) within group (order by pairs.new_seconds)::numeric as new_p95,
        percentile_cont(0.95) within group (order by pairs.legacy_seconds)::numeric as legacy_p95,
        count(pairs.read_name) >= 100 as is_enough
    from (
        values ('bookings'), ('booking'), ('assignments'), ('finance')
    ) as main (read_name)
    left join pairs on main.read_name = pairs.read_name
    group by main.read_name
) as p
