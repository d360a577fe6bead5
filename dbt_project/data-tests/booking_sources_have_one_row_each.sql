-- Grain of int_booking_sources: every landed booking once, and exactly one winner an identity.
select
    source_system,
    source_pk
from {{ ref('int_booking_sources') }}
group by source_system, source_pk
having count(*) > 1

union all

select
    channel_code as source_system,
    external_booking_ref as source_pk
from {{ ref('int_booking_sources') }}
where is_candidate
group by channel_code, external_booking_ref
having count(*) filter (where candidate_rank = 1) <> 1
