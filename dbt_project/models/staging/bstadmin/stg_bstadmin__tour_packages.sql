with source as (

    select * from {{ source('bstadmin', 'tour_packages') }}

),

final as (

    select
        package_id,
        tour_id,
        {{ function('norm_text') }}(package_name) as package_name,
        {{ function('norm_slug') }}(slug) as slug,
        {{ function('norm_slug') }}({{ function('norm_text') }}(package_name)) as name_slug,
        {{ function('match_name') }}(package_name) as match_name,
        {{ function('norm_lines') }}(short_description) as short_description,
        {{ function('norm_lines') }}(description) as description,
        duration_days,
        {{ function('norm_money') }}(price_per_person) as price_per_person,
        {{ function('norm_money') }}(price_per_child) as price_per_child,
        {{ function('is_money') }}(price_per_person) and {{ function('is_money') }}(price_per_child) as has_money,
        {{ function('norm_currency') }}(base_currency) as currency_code,
        {{ function('is_currency') }}(base_currency) as has_currency,
        min_booking,
        max_booking,
        is_featured,
        {{ function('norm_text') }}(thumbnail_url) as thumbnail_url,
        {{ function('norm_text') }}(color_code) as color_code,
        priority,
        package_name as raw_package_name,
        slug as raw_slug,
        price_per_person as raw_price_per_person,
        price_per_child as raw_price_per_child,
        base_currency as raw_base_currency
    from source

)

select * from final
