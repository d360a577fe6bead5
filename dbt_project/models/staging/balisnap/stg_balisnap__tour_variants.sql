select
    variant_id,
    product_id,
    legacy_package_id,
    {{ function('norm_text') }}(variant_code) as variant_code,
    {{ function('norm_text') }}(variant_name) as variant_name,
    coalesce({{ function('norm_code') }}(service_type), 'PRIVATE') as service_type,
    duration_days,
    duration_nights,
    min_pax,
    max_pax,
    currency_code as raw_currency_code,
    is_default,
    is_active,
    coalesce(booking_cutoff_hours, 24) as booking_cutoff_hours,
    {{ function('norm_lines') }}(cancellation_policy) as cancellation_policy,
    variant_code as raw_variant_code,
    variant_name as raw_variant_name
from {{ source('balisnap', 'TourVariant') }}
