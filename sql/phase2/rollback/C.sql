-- Rollback of batch C: empties the catalog bridge, after a dump of its queue rows for investigation.
-- Only this batch's tables and rows. Idempotent. Refuses while bookings point at the catalog.
-- delete, not truncate: booking_item_snapshot's foreign key forbids a truncate even when it is empty, and catalogs are
-- small. No batch is left that reads the landed rows: they go too, and the next run copies them again.
-- Today every catalog row is the batch's; once ingestion adds its own refs (part 4), those stay: they name another
-- source_system than balisnap and bstadmin.

begin;
set local lock_timeout = '5s';
set local search_path = '';

do $$
begin
    if exists (select 1 from public.booking_core) then
        raise exception 'bookings point at the catalog: roll back batch D first';
    end if;
end
$$;

insert into phase2.unmapped_queue_dump (
    batch, run_id, queue_key, queue_type, channel_code, source_system, source_table, source_pk, reason_code,
    reason_detail, status, payload, resolved_by, resolved_at, created_at, updated_at
)
select
    'C' as batch,
    (select r.run_id from phase2.run_context as r) as run_id,
    q.queue_key,
    q.queue_type,
    q.channel_code,
    q.source_system,
    q.source_table,
    q.source_pk,
    q.reason_code,
    q.reason_detail,
    q.status,
    q.payload,
    q.resolved_by,
    q.resolved_at,
    q.created_at,
    q.updated_at
from public.unmapped_queue as q
where q.queue_type in ('PRODUCT_MAPPING', 'VARIANT_MAPPING', 'CATALOG_EXTENDED_METADATA');

-- dbt's working tables hold what the batch computed; every run makes them again
drop schema if exists dbt_intermediate cascade;
drop table if exists dbt_recon.recon_c_reading;

do $$
declare
    landed record;
begin
    for landed in
        select t.schemaname, t.tablename from pg_catalog.pg_tables as t
        where t.schemaname in ('landing_balisnap', 'landing_bstadmin')
    loop
        execute format('truncate %I.%I', landed.schemaname, landed.tablename);
    end loop;
end
$$;

with removed_queue as (
    delete from public.unmapped_queue
    where queue_type in ('PRODUCT_MAPPING', 'VARIANT_MAPPING', 'CATALOG_EXTENDED_METADATA')
    returning 1
),

removed_refs as (
    delete from public.channel_external_refs
    where entity_type in ('PRODUCT', 'VARIANT') and source_system in ('balisnap', 'bstadmin')
    returning 1
),

removed_rates as (
    delete from public.catalog_variant_rate
    returning 1
),

removed_leftovers as (
    delete from phase2.source_leftovers
    where
        source_table in (
            'TourProduct', 'TourVariant', 'VariantRatePlan', 'VariantItinerary', 'TourPackage', 'TourImage',
            'tours', 'tour_packages', 'tour_images', 'tour_itineraries'
        )
    returning 1
),

removed_variants as (
    delete from public.catalog_variant
    returning 1
),

removed_products as (
    delete from public.catalog_product
    returning 1
)

select
    'unmapped_queue' as table_name,
    count(*) as rows
from removed_queue
union all
select
    'channel_external_refs' as table_name,
    count(*) as rows
from removed_refs
union all
select
    'catalog_variant_rate' as table_name,
    count(*) as rows
from removed_rates
union all
select
    'catalog_variant' as table_name,
    count(*) as rows
from removed_variants
union all
select
    'catalog_product' as table_name,
    count(*) as rows
from removed_products
union all
select
    'phase2.source_leftovers' as table_name,
    count(*) as rows
from removed_leftovers;

commit;
