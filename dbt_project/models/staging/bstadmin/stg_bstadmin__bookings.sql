with source as (
    select * from {{ source('bstadmin', 'bookings') }}
)

select
    booking_id,
    booking_ref,
    {{ function('norm_ref') }}(booking_ref) as external_ref,
    {{ function('booking_channel') }}(source) as channel_code,
    {{ function('norm_code') }}(source) as source_enum,
    package_id,
    {{ function('bali_date') }}({{ function('utc_instant') }}(booking_date)) as received_on,
    {{ function('bali_date') }}({{ function('utc_instant') }}(tour_date)) as tour_date,
    tour_date as raw_tour_date,
    {{ function('parse_tour_time') }}(tour_time) as tour_time,
    total_price,
    currency as currency_code,
    number_of_adult,
    number_of_child,
    {{ function('norm_code') }}(status) as status,
    {{ function('norm_text') }}(main_contact_name) as main_name,
    {{ function('norm_text') }}(main_contact_email) as main_email,
    {{ function('norm_phone') }}(phone_number) as phone,
    {{ function('norm_place') }}(pickup_location) as pickup_location,
    {{ function('norm_place') }}(meeting_point) as meeting_point,
    {{ function('norm_lines') }}(note) as note,
    assigned_driver_id,
    {{ function('utc_instant') }}(assigned_at) as assigned_at,
    is_paid,
    {{ function('utc_instant') }}(paid_at) as paid_at,
    {{ function('utc_instant') }}(created_at) as created_at,
    {{ function('utc_instant') }}(updated_at) as updated_at,
    created_at as raw_created_at
from source
