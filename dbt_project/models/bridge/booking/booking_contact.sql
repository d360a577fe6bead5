{{ config(key='booking_key') }}
-- depends_on: {{ ref('booking_core') }}

select
    booking_key,
    main_name,
    main_email,
    phone,
    pickup_location,
    meeting_point,
    is_placeholder_name,
    is_placeholder_email,
    updated_from_source
from {{ ref('int_booking_contacts') }}
