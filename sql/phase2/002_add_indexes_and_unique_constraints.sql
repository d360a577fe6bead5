-- Batch A: indexes, unique keys and foreign keys of the canonical tables.
-- Additive and idempotent: what exists by its name is left as it is (090 notices when it says something else).
-- The tables are new, so plain (not concurrent) builds are instant and stay within one transaction.

begin;
set local lock_timeout = '5s';
set local search_path = '';

create unique index if not exists ux_channel_external_refs_entity_channel_kind_ref
on public.channel_external_refs (entity_type, channel_code, external_ref_kind, external_ref);

create unique index if not exists ux_catalog_variant_product_code
on public.catalog_variant (product_key, code);

create index if not exists ix_catalog_variant_rate_variant_active
on public.catalog_variant_rate (variant_key, is_active);

create index if not exists ix_booking_core_status_pair
on public.booking_core (customer_payment_status, ops_fulfillment_status);
create index if not exists ix_booking_core_tour_date
on public.booking_core (tour_date);
create unique index if not exists ux_booking_core_channel_external_ref
on public.booking_core (channel_code, external_booking_ref);

create index if not exists ix_payment_event_booking_time
on public.payment_event (booking_key, payment_time desc);
create unique index if not exists ux_payment_event_payment_ref_not_null
on public.payment_event (payment_ref) where payment_ref is not null;

create index if not exists ix_ops_assignment_booking_active
on public.ops_assignment (booking_key, is_active);

create unique index if not exists ux_ops_finance_bridge_booking_key
on public.ops_finance_bridge (booking_key);

create index if not exists ix_ingest_event_created_at
on public.ingest_event_log (created_at);
create index if not exists ix_ingest_event_nonce_received_at
on public.ingest_event_log (nonce, request_received_at desc);
create index if not exists ix_ingest_event_process_retry
on public.ingest_event_log (process_status, next_retry_at);
create unique index if not exists ux_ingest_event_idempotency_key
on public.ingest_event_log (idempotency_key);
create unique index if not exists ux_ingest_event_secondary_dedup
on public.ingest_event_log (source_enum, external_booking_ref, event_type, event_time_normalized);

create index if not exists ix_ingest_dead_letter_status_failed_at
on public.ingest_dead_letter (status, last_failed_at);
create index if not exists ix_ingest_dead_letter_updated_at
on public.ingest_dead_letter (updated_at);

create index if not exists ix_unmapped_queue_status_type_created
on public.unmapped_queue (status, queue_type, created_at);

-- Postgres has no "add constraint if not exists".
do $$
begin
    if not exists (
        select 1 from pg_catalog.pg_constraint as c
        where c.conname = 'catalog_product_slug_key' and c.conrelid = 'public.catalog_product'::regclass
    ) then
        alter table public.catalog_product add constraint catalog_product_slug_key unique (slug);
    end if;
end
$$;

-- Foreign keys: the column has the same name on both sides, the constraint is {table}_{column}_fkey.
do $$
declare
    fkey record;
begin
    for fkey in
        select v.table_name, v.column_name, v.referenced, v.table_name || '_' || v.column_name || '_fkey' as name
        from (
            values
            ('channel_external_refs', 'channel_code', 'channel_registry'),
            ('catalog_variant', 'product_key', 'catalog_product'),
            ('catalog_variant_rate', 'variant_key', 'catalog_variant'),
            ('booking_core', 'channel_code', 'channel_registry'),
            ('booking_contact', 'booking_key', 'booking_core'),
            ('booking_party', 'booking_key', 'booking_core'),
            ('booking_item_snapshot', 'booking_key', 'booking_core'),
            ('booking_item_snapshot', 'variant_key', 'catalog_variant'),
            ('payment_event', 'booking_key', 'booking_core'),
            ('ops_booking_state', 'booking_key', 'booking_core'),
            ('ops_assignment', 'booking_key', 'booking_core'),
            ('ops_finance_bridge', 'booking_key', 'booking_core'),
            ('ingest_event_log', 'channel_code', 'channel_registry'),
            ('ingest_dead_letter', 'event_key', 'ingest_event_log'),
            ('unmapped_queue', 'channel_code', 'channel_registry')
        ) as v (table_name, column_name, referenced)
    loop
        if not exists (
            select 1 from pg_catalog.pg_constraint as c
            where c.conname = fkey.name and c.conrelid = format('public.%I', fkey.table_name)::regclass
        ) then
            execute format(
                'alter table public.%I add constraint %I foreign key (%I) references public.%I (%I)',
                fkey.table_name, fkey.name, fkey.column_name, fkey.referenced, fkey.column_name
            );
        end if;
    end loop;
end
$$;

commit;
