-- Mapping 1: values that do not fit never vanish. Every landed booking is bridged or under INVALID_SOURCE review.
-- depends_on: {{ ref('int_booking_reviews') }}
select
    sources.source_system,
    sources.source_pk
from {{ ref('int_booking_sources') }} as sources
left join {{ ref('int_booking_candidates') }} as candidates
    on sources.source_system = candidates.source_system and sources.booking_id = candidates.booking_id
left join {{ ref('int_booking_reviews') }} as reviews
    on
        sources.source_table = reviews.source_table
        and sources.source_pk = reviews.source_pk
        and reviews.reason_code = 'INVALID_SOURCE'
where candidates.booking_key is null and reviews.queue_key is null
