-- Batch B: the channels. A value of bstadmin's BookingSource outside this list becomes MANUAL (mapping 4.1).
-- Idempotent: adds what is missing, restores a label that was changed, writes nothing otherwise.
-- is_active is a person's switch and is left as it is.

begin;
set local lock_timeout = '5s';
set local search_path = '';

insert into public.channel_registry as t (channel_code, channel_name)
select
    v.code,
    v.label
from (
    values
    ('DIRECT', 'Direct (own website)'),
    ('GYG', 'GetYourGuide'),
    ('VIATOR', 'Viator'),
    ('BOKUN', 'Bokun'),
    ('TRIPDOTCOM', 'Trip.com'),
    ('MANUAL', 'Manual entry')
) as v (code, label)
left join public.channel_registry as x on v.code = x.channel_code
where x.channel_name is distinct from v.label
on conflict (channel_code) do update
    set channel_name = excluded.channel_name, updated_at = now();

commit;
