with source as (
    select * from {{ source('balisnap', 'Departure') }}
)

select
    departure_id,
    variant_id,
    {{ function('utc_instant') }}(start_date) as starts_at
from source
