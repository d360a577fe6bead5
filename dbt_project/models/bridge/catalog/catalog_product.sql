{#- A slug that another product is about to take is let go first: two products may swap theirs in one run. -#}
{{
    config(
        key='product_key',
        pre_hook="""
            update {{ source('bridge', 'catalog_product') }} as t
            set slug = t.product_key::text
            from {{ ref('int_catalog_products') }} as mine, {{ ref('int_catalog_products') }} as other
            where
                t.product_key = mine.product_key and t.slug <> mine.slug
                and t.slug = other.slug and t.product_key <> other.product_key
        """
    )
}}

select
    product_key,
    slug,
    name,
    product_category,
    short_description,
    description,
    is_active,
    is_featured,
    thumbnail_url,
    color_code,
    priority,
    country_code,
    region,
    base_meeting_point
from {{ ref('int_catalog_products') }}
