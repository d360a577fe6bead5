select
    image_id,
    tour_id as package_id,
    {{ function('norm_text') }}(url) as url
from {{ source('balisnap', 'TourImage') }}
