-- Rollback of batch A: drops the 17 tables, and nothing that is not ours (no cascade: what somebody else has built on
-- them makes this fail). Idempotent. Refuses while rows of later batches or of ingestion stand in them; the log of
-- scripts goes with its table, phase2.step_log keeps what ran.

begin;
set local lock_timeout = '5s';
set local search_path = '';

do $$
declare
    kept text;
    is_there boolean;
begin
    foreach kept in array array[
        'channel_external_refs', 'catalog_product', 'catalog_variant', 'catalog_variant_rate', 'booking_core',
        'ingest_event_log', 'ingest_dead_letter', 'unmapped_queue'
    ]
    loop
        if to_regclass('public.' || kept) is not null then
            execute format('select exists (select 1 from public.%I)', kept) into is_there;
            if is_there then
                raise exception 'public.% still holds rows: roll back the later batches first', kept;
            end if;
        end if;
    end loop;
end
$$;

-- dbt's working schemas and the read model stand on the tables; the next run makes them again
drop schema if exists ops_read cascade;
drop schema if exists dbt_recon cascade;
drop schema if exists dbt_intermediate cascade;
drop schema if exists dbt_staging cascade;
drop schema if exists dbt_seeds cascade;
drop schema if exists rulebook cascade;

drop table if exists
public.channel_registry,
public.channel_external_refs,
public.catalog_product,
public.catalog_variant,
public.catalog_variant_rate,
public.booking_core,
public.booking_contact,
public.booking_party,
public.booking_item_snapshot,
public.payment_event,
public.ops_booking_state,
public.ops_assignment,
public.ops_finance_bridge,
public.ingest_event_log,
public.ingest_dead_letter,
public.unmapped_queue,
public.migration_run_log;

commit;
