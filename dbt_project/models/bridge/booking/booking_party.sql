{{ config(key='booking_key') }}
-- depends_on: {{ ref('booking_core') }}

select
    cores.booking_key,
    cores.party_adult_qty as adult_qty,
    cores.party_child_qty as child_qty,
    cores.party_infant_qty as infant_qty,
    travelers.traveler_rows,
    cores.fill_only
from {{ ref('int_booking_cores') }} as cores
left join {{ ref('int_booking_travelers') }} as travelers
    on cores.booking_key = travelers.booking_key and {{ in_range('travelers.booking_key') }}
