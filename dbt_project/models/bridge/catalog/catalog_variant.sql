{#- A code that another variant of the product is about to take is let go first. -#}
{{
    config(
        key='variant_key',
        pre_hook="""
            update {{ source('bridge', 'catalog_variant') }} as t
            set code = t.variant_key::text
            from {{ ref('int_catalog_variants') }} as mine, {{ ref('int_catalog_variants') }} as other
            where
                t.variant_key = mine.variant_key and (t.product_key, t.code) <> (mine.product_key, mine.code)
                and t.product_key = other.product_key and t.code = other.code and t.variant_key <> other.variant_key
        """
    )
}}
-- depends_on: {{ ref('catalog_product') }}

select
    variant_key,
    product_key,
    code,
    name,
    service_type,
    duration_days,
    duration_nights,
    min_pax,
    max_pax,
    currency_code,
    is_default,
    is_active,
    booking_cutoff_hours,
    cancellation_policy
from {{ ref('int_catalog_variants') }}
