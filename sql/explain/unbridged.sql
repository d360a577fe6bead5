-- Source bookings that are no candidates, by ref or id (phase2.explain, phase2.explain_table): why they are not.
select
    s.source_system || ':' || s.source_table || ':' || s.source_pk as address,
    s.channel_code,
    s.external_booking_ref,
    s.has_long_ref,
    s.lacks_travel_date,
    s.lacks_created_at
from dbt_intermediate.int_booking_sources as s
where
    not s.is_candidate
    and (
        s.source_pk = (select current_setting('phase2.explain'))
        or s.external_booking_ref = (select rulebook.norm_ref(current_setting('phase2.explain')))
    )
    and (select current_setting('phase2.explain_table')) in ('', s.source_system || ':' || s.source_table)
order by s.source_system, s.booking_id
