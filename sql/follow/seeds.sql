-- What landed changes say since the batch settled (pg_temp.changes_since), and bookings whose status depends on a day
-- that has come or gone.
drop table if exists pg_temp.changes_since;

create temporary table changes_since as
select
    c.source,
    c.table_name,
    c.parent,
    c.booking_key
from phase2.landed_changes as c
where
    c.change_no > current_setting('phase2.since')::bigint
    and (c.for_batch is null or c.for_batch = current_setting('phase2.batch'));

analyze pg_temp.changes_since;

insert into phase2.touched_keys (booking_key, round)
select
    c.booking_key,
    0 as round
from public.booking_core as c
where
    current_setting('phase2.moved')::boolean
    and c.tour_date between current_setting('phase2.first')::date and current_setting('phase2.last')::date
on conflict do nothing
