{{ config(key='booking_key') }}
-- depends_on: {{ ref('booking_core') }}

-- What a newer bridge keeps (mapping 4.13) is already in the values.
select
    booking_key,
    state_fulfillment_status as ops_fulfillment_status,
    state_driver_id as assigned_driver_id,
    state_assigned_at as assigned_at,
    state_is_paid_flag as is_paid_flag,
    state_paid_at as paid_at,
    state_updated_from_source as updated_from_source
from {{ ref('int_booking_cores') }}
