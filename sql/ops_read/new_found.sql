-- The bookings whose reference or name holds what is searched for, by their trigrams; of more than 5,000 only so many.
select to_jsonb(f.booking_key) as page_row
from (
    select c.booking_key
    from public.booking_core as c
    where c.external_booking_ref ilike %(pattern)s
    union all
    select t.booking_key
    from public.booking_contact as t
    where t.main_name ilike %(pattern)s
    limit 5001
) as f
