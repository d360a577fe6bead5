with source as (

    select * from {{ source('balisnap', 'TourProduct') }}

),

final as (

    select
        product_id,
        legacy_package_id,
        {{ function('norm_text') }}(product_name) as product_name,
        {{ function('norm_slug') }}(slug) as slug,
        {{ function('norm_slug') }}({{ function('norm_text') }}(product_name)) as name_slug,
        {{ function('match_name') }}(product_name) as match_name,
        {{ function('norm_lines') }}(short_description) as short_description,
        {{ function('norm_lines') }}(description) as description,
        {{ function('norm_text') }}(category) as product_category,
        coalesce({{ function('norm_code') }}(country_code), 'ID') as country_code,
        {{ function('norm_text') }}(region) as region,
        {{ function('norm_place') }}(base_meeting_point) as base_meeting_point,
        is_featured,
        is_active,
        {{ function('norm_text') }}(thumbnail_url) as thumbnail_url,
        {{ function('norm_text') }}(color_code) as color_code,
        priority::integer as priority,
        product_name as raw_product_name,
        slug as raw_slug
    from source

)

select * from final
