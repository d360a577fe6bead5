-- Mapping 4.11: one active row per booking with a driver.
-- depends_on: {{ ref('ops_assignment') }}
select booking_key
from {{ source('bridge', 'ops_assignment') }}
where is_active and {{ touched_key('booking_key') }}
group by booking_key
having count(*) > 1
