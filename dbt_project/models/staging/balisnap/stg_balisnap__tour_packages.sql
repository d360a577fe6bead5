select
    package_id,
    {{ function('norm_lines') }}(short_description) as short_description,
    {{ function('norm_lines') }}(description) as description,
    {{ function('norm_text') }}(thumbnail_url) as thumbnail_url,
    {{ function('norm_text') }}(color_code) as color_code,
    priority::integer as priority,
    {{ function('norm_money') }}(price_per_person) as price_per_person,
    {{ function('norm_money') }}(price_per_child) as price_per_child,
    {{ function('is_money') }}(price_per_person) and {{ function('is_money') }}(price_per_child) as has_money,
    price_per_person as raw_price_per_person,
    price_per_child as raw_price_per_child
from {{ source('balisnap', 'TourPackage') }}
