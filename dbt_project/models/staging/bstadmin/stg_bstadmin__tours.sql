select
    tour_id,
    {{ function('norm_text') }}(tour_name) as tour_name,
    is_active
from {{ source('bstadmin', 'tours') }}
