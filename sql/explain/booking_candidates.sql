-- The candidates of one booking (phase2.explain_key) as batch D last ranked them: what each of them says, normalised.
with candidates as materialized (
    select * from dbt_intermediate.int_booking_candidates
    where booking_key = (select current_setting('phase2.explain_key')::uuid)
),

balisnap as (
    select c.booking_id from candidates as c
    where c.source_system = 'balisnap'
),

bstadmin as (
    select c.booking_id from candidates as c
    where c.source_system = 'bstadmin'
),

contacts as (
    select
        'balisnap' as source_system,
        b.booking_id,
        b.main_name,
        b.main_email,
        b.phone,
        b.meeting_point as pickup_location,
        b.meeting_point
    from dbt_staging.stg_balisnap__bookings as b
    where
        exists (select 1 from balisnap) -- else nothing is read
        and b.booking_id = any(array(select balisnap.booking_id from balisnap))
    union all
    select
        'bstadmin' as source_system,
        b.booking_id,
        b.main_name,
        b.main_email,
        b.phone,
        b.pickup_location,
        b.meeting_point
    from dbt_staging.stg_bstadmin__bookings as b
    where
        exists (select 1 from bstadmin) -- else nothing is read
        and b.booking_id = any(array(select bstadmin.booking_id from bstadmin))
)

select
    c.source_system,
    c.source_table,
    c.source_pk,
    c.candidate_rank,
    c.strength,
    c.updated_at,
    c.carries_items,
    rulebook.is_placeholder_name(s.main_name, rulebook.placeholders('name')) as is_placeholder_name,
    rulebook.is_placeholder_email(s.main_email, rulebook.placeholders('email')) as is_placeholder_email,
    rulebook.is_email(s.main_email) as is_email,
    to_jsonb(c) || to_jsonb(s) as said
from candidates as c
inner join contacts as s on c.source_system = s.source_system and c.booking_id = s.booking_id
order by c.candidate_rank
