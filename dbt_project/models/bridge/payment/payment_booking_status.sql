{{ config(table='booking_core', key='booking_key', update_only=true) }}

-- The settlement recompute: batch D's own engine, asked again with the payments and finances as they are now.
-- depends_on: {{ ref('booking_core') }}
select
    booking_key,
    customer_payment_status,
    ops_fulfillment_status
from {{ ref('int_booking_cores') }}
