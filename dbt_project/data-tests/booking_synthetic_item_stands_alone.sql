-- Mapping 4.9: a synthetic item only where a booking has no other.
-- depends_on: {{ ref('booking_item_snapshot') }}
select booking_key
from {{ source('bridge', 'booking_item_snapshot') }}
where {{ touched_key('booking_key') }}
group by booking_key
having bool_or(snapshot_json ? 'synthetic') and count(*) > 1
