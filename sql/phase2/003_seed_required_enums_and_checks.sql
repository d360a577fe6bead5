-- Batch A: the closed value lists that the database itself enforces.
-- Four columns have a check; their dictionaries (ref_*) come with batch B, 011 and 012. The two status columns of
-- booking_core have none on purpose: the legacy enums are not forced into one global enum (blueprint 2.2).

begin;
set local lock_timeout = '5s';
set local search_path = '';

do $$
declare
    chk record;
begin
    for chk in
        select * from (
            values
            (
                'booking_core', 'ck_booking_core_package_ref_type', 'package_ref_type',
                array['LEGACY_PACKAGE', 'CATALOG_PRODUCT', 'CATALOG_VARIANT']
            ),
            (
                'ingest_event_log', 'ck_ingest_event_process_status', 'process_status',
                array['RECEIVED', 'PROCESSING', 'DONE', 'FAILED']
            ),
            (
                'ingest_dead_letter', 'ck_ingest_dead_letter_status', 'status',
                array['OPEN', 'READY', 'REPLAYING', 'SUCCEEDED', 'FAILED', 'RESOLVED', 'CLOSED']
            ),
            (
                'unmapped_queue', 'ck_unmapped_queue_status', 'status',
                array['OPEN', 'IN_REVIEW', 'RESOLVED', 'CLOSED']
            )
        ) as v (table_name, name, column_name, accepted)
    loop
        if not exists (
            select 1 from pg_catalog.pg_constraint as c
            where c.conname = chk.name and c.conrelid = format('public.%I', chk.table_name)::regclass
        ) then
            execute format(
                'alter table public.%I add constraint %I check (%I in (%s))',
                chk.table_name, chk.name, chk.column_name,
                (select string_agg(quote_literal(a.value), ', ' order by a.position)
                 from unnest(chk.accepted) with ordinality as a (value, position))
            );
        end if;
    end loop;
end
$$;

commit;
