select
    payment_id,
    booking_id,
    {{ function('utc_instant') }}(payment_date) as payment_date,
    payment_date as raw_payment_date,
    amount,
    currency_code,
    payment_method,
    payment_status,
    payment_status_v2,
    gateway,
    gateway_order_id,
    gateway_capture_id,
    payment_ref,
    raw_payload,
    {{ function('utc_instant') }}(updated_at) as updated_at
from {{ source('balisnap', 'Payment') }}
