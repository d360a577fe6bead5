{{ config(table='ops_booking_state', key='booking_key', update_only=true) }}

-- depends_on: {{ ref('ops_booking_state') }}
select
    booking_key,
    state_fulfillment_status as ops_fulfillment_status,
    state_is_paid_flag as is_paid_flag,
    state_paid_at as paid_at
from {{ ref('int_booking_cores') }}
