{{ config(key='assignment_key') }}
-- depends_on: {{ ref('booking_core') }}

select
    assignment_key,
    booking_key,
    driver_id,
    assignment_source,
    assigned_at,
    unassigned_at,
    is_active
from {{ ref('int_booking_assignments') }}
