-- What the latest full comparison found, field by field.
select
    d.field,
    d.found ->> 2 as rule,
    a.reason,
    a.owner,
    count(*) as bookings,
    min(b.id) as example
from {{ source('phase2', 'parity_bookings') }} as b
cross join lateral jsonb_each(b.differences) as d (field, found)
left join {{ ref('approved_differences') }} as a on d.field = a.field and d.found ->> 2 = a.rule
group by d.field, d.found ->> 2, a.reason, a.owner
