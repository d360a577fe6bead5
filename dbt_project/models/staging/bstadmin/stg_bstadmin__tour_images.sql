-- tour_id points at tour_packages.package_id despite its name
select
    image_id,
    tour_id as package_id,
    {{ function('norm_text') }}(url) as url
from {{ source('bstadmin', 'tour_images') }}
