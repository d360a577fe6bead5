select
    rate_plan_id,
    variant_id,
    {{ function('norm_code') }}(traveler_type) as traveler_type,
    {{ function('norm_currency') }}(currency_code) as currency_code,
    {{ function('is_currency') }}(currency_code) as has_currency,
    -- NaN sorts above every number in Postgres, so it is named; beyond the type is 0 and review, not invalid
    (price is not null and price <> 'NaN'::numeric and price >= 0) as has_price,
    {{ function('is_money') }}(price) as is_money,
    {{ function('norm_money') }}(price) as price,
    min_quantity,
    max_quantity,
    {{ function('utc_instant') }}(valid_from) as valid_from,
    {{ function('utc_instant') }}(valid_to) as valid_to,
    is_active,
    price as raw_price,
    currency_code as raw_currency_code
from {{ source('balisnap', 'VariantRatePlan') }}
