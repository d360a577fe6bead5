-- Grain: one kind of drill, its latest.
select distinct on (drill)
    drill,
    drill_id,
    passed,
    measured,
    ended_at
from {{ source('phase2', 'drills') }}
order by drill asc, ended_at desc, drill_id desc
