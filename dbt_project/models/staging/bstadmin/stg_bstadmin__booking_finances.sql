select
    booking_finance_id,
    booking_id,
    pattern_id,
    {{ function('utc_instant') }}(validated_at) as validated_at,
    is_locked
from {{ source('bstadmin', 'booking_finances') }}
