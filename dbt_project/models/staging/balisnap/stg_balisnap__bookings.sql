select
    booking_id,
    package_id,
    booking_ref,
    {{ function('norm_ref') }}(booking_ref) as external_ref,
    -- the travel day, whatever its name says (mapping 1, business dates)
    {{ function('travel_day') }}(booking_date) as travel_day,
    booking_date as raw_booking_date,
    total_price,
    currency_code,
    number_of_adult,
    number_of_child,
    status,
    status_v2,
    {{ function('norm_text') }}(main_contact_name) as main_name,
    {{ function('norm_text') }}(main_contact_email) as main_email,
    {{ function('norm_phone') }}(phone_number) as phone,
    {{ function('norm_place') }}(meeting_point) as meeting_point,
    {{ function('norm_lines') }}(note) as note,
    {{ function('utc_instant') }}(created_at) as created_at,
    {{ function('utc_instant') }}(updated_at) as updated_at,
    created_at as raw_created_at
from {{ source('balisnap', 'Booking') }}
