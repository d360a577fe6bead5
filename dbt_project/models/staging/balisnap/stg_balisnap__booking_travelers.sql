select
    traveler_id,
    booking_item_id,
    {{ function('norm_code') }}(traveler_type) as traveler_type,
    {{ function('norm_text') }}(title) as title,
    {{ function('norm_text') }}(first_name) as first_name,
    {{ function('norm_text') }}(last_name) as last_name,
    {{ function('norm_text') }}(email) as email,
    {{ function('norm_text') }}(phone) as phone,
    case when isfinite(birth_date) then birth_date end as birth_date,
    {{ function('norm_text') }}(nationality) as nationality,
    {{ function('norm_text') }}(passport_number) as passport_number,
    {{ function('norm_text') }}(special_request) as special_request,
    {{ function('utc_instant') }}(created_at) as created_at,
    {{ function('utc_instant') }}(updated_at) as updated_at
from {{ source('balisnap', 'BookingTraveler') }}
