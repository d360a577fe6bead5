select
    departure_id,
    variant_id,
    {{ function('utc_instant') }}(start_date) as starts_at
from {{ source('balisnap', 'Departure') }}
