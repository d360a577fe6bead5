-- Rollback of batch B: the six seeded channels go, and the six dictionaries' tables, which 011 and 012 made.
-- Idempotent. A channel that a booking, a reference, an event or a queue row still names makes this fail, as it should.

begin;
set local lock_timeout = '5s';
set local search_path = '';

delete from public.channel_registry
where channel_code in ('DIRECT', 'GYG', 'VIATOR', 'BOKUN', 'TRIPDOTCOM', 'MANUAL');

drop table if exists
public.ref_mapping_status,
public.ref_ingest_status,
public.ref_replay_status,
public.ref_dead_letter_status,
public.ref_unmapped_queue_status,
public.ref_package_ref_type;

commit;
