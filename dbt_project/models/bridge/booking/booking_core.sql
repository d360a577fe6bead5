{{ config(key='booking_key') }}
-- depends_on: {{ ref('catalog_external_refs') }}

-- What a newer bridge keeps (mapping 4.13) is already in the values.
select
    booking_key,
    channel_code,
    source_enum_compat,
    external_booking_ref,
    booking_created_at,
    booking_date,
    tour_date,
    tour_time,
    currency_code,
    total_price,
    number_of_adult,
    number_of_child,
    customer_payment_status,
    ops_fulfillment_status,
    package_ref_type,
    package_ref_key,
    legacy_package_id,
    note
from {{ ref('int_booking_cores') }}
