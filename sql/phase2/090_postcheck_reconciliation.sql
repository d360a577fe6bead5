-- Batch A, after 001 to 003: does the database hold the contract (target_schema) exactly?
-- Reads the catalog only. One row a check: gate, what, PASS, FAIL or N/A, and what is wrong.
--   A-01  the 17 tables: there, ordinary, logged, with exactly these columns, types, nullability and defaults
--   A-02  their primary, unique and foreign keys, checks and indexes; no triggers
--   B-02  the dictionaries' tables (N/A before batch B; their rows are the seeds' own gate)
-- The contract stands once, as data, in the first five CTEs. The required reconciliation queries
-- over the rows are the recon models' work.

begin;
set local transaction_read_only = on;
set local search_path = '';

with wanted_tables (gate_id, table_name, columns) as (
    values
    ('A-01', 'channel_registry', array[
        'channel_code varchar(32) not null',
        'channel_name varchar(128) not null',
        'is_active boolean not null default true',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('A-01', 'channel_external_refs', array[
        'external_ref_key uuid not null',
        'entity_type varchar(32) not null',
        'entity_key uuid not null',
        'channel_code varchar(32) not null',
        'external_ref_kind varchar(64) not null',
        'external_ref varchar(128) not null',
        'source_system varchar(32) not null',
        'source_table varchar(64) not null',
        'source_pk varchar(128) not null',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('A-01', 'catalog_product', array[
        'product_key uuid not null',
        'slug varchar(191) not null',
        'name varchar(255) not null',
        'product_category varchar(128)',
        'short_description text',
        'description text',
        'is_active boolean not null default true',
        'is_featured boolean not null default false',
        'thumbnail_url text',
        'color_code varchar(32)',
        'priority integer',
        'country_code varchar(2) not null default ''ID''::character varying',
        'region varchar(128)',
        'base_meeting_point text',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('A-01', 'catalog_variant', array[
        'variant_key uuid not null',
        'product_key uuid not null',
        'code varchar(64) not null',
        'name varchar(255) not null',
        'service_type varchar(32) not null',
        'duration_days integer not null',
        'duration_nights integer',
        'min_pax integer not null default 1',
        'max_pax integer',
        'currency_code varchar(3) not null default ''USD''::character varying',
        'is_default boolean not null default false',
        'is_active boolean not null default true',
        'booking_cutoff_hours integer not null default 24',
        'cancellation_policy text',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('A-01', 'catalog_variant_rate', array[
        'variant_rate_key uuid not null',
        'variant_key uuid not null',
        'traveler_type varchar(16) not null',
        'currency_code varchar(3) not null default ''USD''::character varying',
        'price numeric(12,2) not null',
        'min_quantity integer',
        'max_quantity integer',
        'valid_from timestamptz',
        'valid_to timestamptz',
        'is_active boolean not null default true',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('A-01', 'booking_core', array[
        'booking_key uuid not null',
        'channel_code varchar(32) not null',
        'source_enum_compat varchar(32)',
        'external_booking_ref varchar(128) not null',
        'booking_created_at timestamptz not null',
        'booking_date date',
        'tour_date date not null',
        'tour_time time',
        'currency_code varchar(3) not null default ''USD''::character varying',
        'total_price numeric(12,2) not null default 0',
        'number_of_adult integer not null default 0',
        'number_of_child integer not null default 0',
        'customer_payment_status varchar(32) not null',
        'ops_fulfillment_status varchar(32) not null',
        'package_ref_type varchar(32) not null',
        'package_ref_key uuid',
        'legacy_package_id bigint',
        'note text',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('A-01', 'booking_contact', array[
        'booking_key uuid not null',
        'main_name varchar(191)',
        'main_email varchar(191)',
        'phone varchar(64)',
        'pickup_location text',
        'meeting_point text',
        'is_placeholder_name boolean not null default false',
        'is_placeholder_email boolean not null default false',
        'updated_from_source varchar(32)',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('A-01', 'booking_party', array[
        'booking_key uuid not null',
        'adult_qty integer not null default 0',
        'child_qty integer not null default 0',
        'infant_qty integer not null default 0',
        'traveler_rows jsonb',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('A-01', 'booking_item_snapshot', array[
        'booking_item_key uuid not null',
        'booking_key uuid not null',
        'variant_key uuid',
        'variant_external_id varchar(128)',
        'departure_external_id varchar(128)',
        'currency_code varchar(3) not null default ''USD''::character varying',
        'adult_qty integer not null default 0',
        'child_qty integer not null default 0',
        'infant_qty integer not null default 0',
        'adult_unit_price numeric(12,2) not null default 0',
        'child_unit_price numeric(12,2) not null default 0',
        'discount_amount numeric(12,2) not null default 0',
        'tax_amount numeric(12,2) not null default 0',
        'total_amount numeric(12,2) not null default 0',
        'snapshot_json jsonb',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('A-01', 'payment_event', array[
        'payment_key uuid not null',
        'booking_key uuid not null',
        'payment_time timestamptz not null',
        'amount numeric(12,2) not null',
        'currency_code varchar(3) not null default ''USD''::character varying',
        'method varchar(32)',
        'gateway varchar(64)',
        'gateway_order_id varchar(128)',
        'gateway_capture_id varchar(128)',
        'payment_ref varchar(128)',
        'status_raw varchar(64)',
        'payment_status_v2 varchar(64)',
        'raw_payload jsonb',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('A-01', 'ops_booking_state', array[
        'booking_key uuid not null',
        'ops_fulfillment_status varchar(32) not null',
        'assigned_driver_id integer',
        'assigned_partner_id integer',
        'assigned_at timestamptz',
        'is_paid_flag boolean not null default false',
        'paid_at timestamptz',
        'state_version integer not null default 1',
        'updated_from_source varchar(32)',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('A-01', 'ops_assignment', array[
        'assignment_key uuid not null',
        'booking_key uuid not null',
        'driver_id integer',
        'partner_id integer',
        'assignment_source varchar(32) not null',
        'assigned_at timestamptz not null',
        'unassigned_at timestamptz',
        'is_active boolean not null default true',
        'notes text',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('A-01', 'ops_finance_bridge', array[
        'finance_bridge_key uuid not null',
        'booking_key uuid not null',
        'booking_finance_id bigint',
        'pattern_id bigint',
        'validated_at timestamptz',
        'is_locked boolean not null default false',
        'settlement_status varchar(32)',
        'last_reconciled_at timestamptz',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('A-01', 'ingest_event_log', array[
        'event_key uuid not null',
        'idempotency_key varchar(128) not null',
        'nonce varchar(128) not null',
        'source_enum varchar(32) not null',
        'channel_code varchar(32) not null',
        'external_booking_ref varchar(128) not null',
        'event_type varchar(32) not null',
        'event_time timestamptz not null',
        'event_time_normalized timestamptz not null',
        'payload_hash varchar(64) not null',
        'signature_verified boolean not null default false',
        'process_status varchar(32) not null',
        'attempt_count integer not null default 0',
        'next_retry_at timestamptz',
        'request_received_at timestamptz not null default now()',
        'processed_at timestamptz',
        'raw_payload jsonb not null',
        'error_message text',
        'created_at timestamptz not null default now()'
    ]),
    ('A-01', 'ingest_dead_letter', array[
        'dead_letter_key uuid not null',
        'event_key uuid not null',
        'reason_code varchar(64) not null',
        'reason_detail text',
        'poison_message boolean not null default false',
        'replay_count integer not null default 0',
        'status varchar(32) not null default ''OPEN''::character varying',
        'first_failed_at timestamptz not null',
        'last_failed_at timestamptz not null',
        'next_replay_at timestamptz',
        'raw_payload jsonb not null',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('A-01', 'unmapped_queue', array[
        'queue_key uuid not null',
        'queue_type varchar(64) not null',
        'channel_code varchar(32)',
        'source_system varchar(32) not null',
        'source_table varchar(64) not null',
        'source_pk varchar(128) not null',
        'reason_code varchar(64) not null',
        'reason_detail text',
        'status varchar(32) not null default ''OPEN''::character varying',
        'payload jsonb',
        'resolved_by varchar(128)',
        'resolved_at timestamptz',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('A-01', 'migration_run_log', array[
        'run_key uuid not null',
        'batch_code varchar(16) not null',
        'script_name varchar(191) not null',
        'script_checksum varchar(64) not null',
        'run_status varchar(32) not null',
        'started_at timestamptz not null',
        'ended_at timestamptz',
        'rows_affected bigint',
        'report_path text',
        'error_message text',
        'created_at timestamptz not null default now()'
    ]),
    ('B-02', 'ref_mapping_status', array[
        'status_code varchar(32) not null',
        'status_label varchar(128) not null',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('B-02', 'ref_ingest_status', array[
        'status_code varchar(32) not null',
        'status_label varchar(128) not null',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('B-02', 'ref_replay_status', array[
        'status_code varchar(32) not null',
        'status_label varchar(128) not null',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('B-02', 'ref_package_ref_type', array[
        'type_code varchar(32) not null',
        'type_label varchar(128) not null',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('B-02', 'ref_dead_letter_status', array[
        'status_code varchar(32) not null',
        'status_label varchar(128) not null',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ]),
    ('B-02', 'ref_unmapped_queue_status', array[
        'status_code varchar(32) not null',
        'status_label varchar(128) not null',
        'created_at timestamptz not null default now()',
        'updated_at timestamptz not null default now()'
    ])
),

wanted_primary_keys (table_name, column_name) as (
    values
    ('channel_registry', 'channel_code'),
    ('channel_external_refs', 'external_ref_key'),
    ('catalog_product', 'product_key'),
    ('catalog_variant', 'variant_key'),
    ('catalog_variant_rate', 'variant_rate_key'),
    ('booking_core', 'booking_key'),
    ('booking_contact', 'booking_key'),
    ('booking_party', 'booking_key'),
    ('booking_item_snapshot', 'booking_item_key'),
    ('payment_event', 'payment_key'),
    ('ops_booking_state', 'booking_key'),
    ('ops_assignment', 'assignment_key'),
    ('ops_finance_bridge', 'finance_bridge_key'),
    ('ingest_event_log', 'event_key'),
    ('ingest_dead_letter', 'dead_letter_key'),
    ('unmapped_queue', 'queue_key'),
    ('migration_run_log', 'run_key'),
    ('ref_mapping_status', 'status_code'),
    ('ref_ingest_status', 'status_code'),
    ('ref_replay_status', 'status_code'),
    ('ref_package_ref_type', 'type_code'),
    ('ref_dead_letter_status', 'status_code'),
    ('ref_unmapped_queue_status', 'status_code')
),

-- The column has the same name on both sides; the constraint is {table}_{column}_fkey.
wanted_foreign_keys (table_name, column_name, referenced) as (
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
),

wanted_checks (table_name, name, column_name, accepted) as (
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
),

wanted_indexes (table_name, name, is_unique, definition) as (
    values
    (
        'channel_external_refs', 'ux_channel_external_refs_entity_channel_kind_ref', true,
        '(entity_type, channel_code, external_ref_kind, external_ref)'
    ),
    (
        'catalog_variant', 'ux_catalog_variant_product_code', true,
        '(product_key, code)'
    ),
    (
        'catalog_variant_rate', 'ix_catalog_variant_rate_variant_active', false,
        '(variant_key, is_active)'
    ),
    (
        'booking_core', 'ix_booking_core_status_pair', false,
        '(customer_payment_status, ops_fulfillment_status)'
    ),
    (
        'booking_core', 'ix_booking_core_tour_date', false,
        '(tour_date)'
    ),
    (
        'booking_core', 'ux_booking_core_channel_external_ref', true,
        '(channel_code, external_booking_ref)'
    ),
    (
        'payment_event', 'ix_payment_event_booking_time', false,
        '(booking_key, payment_time DESC)'
    ),
    (
        'payment_event', 'ux_payment_event_payment_ref_not_null', true,
        '(payment_ref) WHERE (payment_ref IS NOT NULL)'
    ),
    (
        'ops_assignment', 'ix_ops_assignment_booking_active', false,
        '(booking_key, is_active)'
    ),
    (
        'ops_finance_bridge', 'ux_ops_finance_bridge_booking_key', true,
        '(booking_key)'
    ),
    (
        'ingest_event_log', 'ix_ingest_event_created_at', false,
        '(created_at)'
    ),
    (
        'ingest_event_log', 'ix_ingest_event_nonce_received_at', false,
        '(nonce, request_received_at DESC)'
    ),
    (
        'ingest_event_log', 'ix_ingest_event_process_retry', false,
        '(process_status, next_retry_at)'
    ),
    (
        'ingest_event_log', 'ux_ingest_event_idempotency_key', true,
        '(idempotency_key)'
    ),
    (
        'ingest_event_log', 'ux_ingest_event_secondary_dedup', true,
        '(source_enum, external_booking_ref, event_type, event_time_normalized)'
    ),
    (
        'ingest_dead_letter', 'ix_ingest_dead_letter_status_failed_at', false,
        '(status, last_failed_at)'
    ),
    (
        'ingest_dead_letter', 'ix_ingest_dead_letter_updated_at', false,
        '(updated_at)'
    ),
    (
        'unmapped_queue', 'ix_unmapped_queue_status_type_created', false,
        '(status, queue_type, created_at)'
    )
),

found_tables as (
    select
        c.oid,
        c.relname as table_name,
        c.relkind,
        c.relpersistence
    from pg_catalog.pg_class as c
    inner join pg_catalog.pg_namespace as n on c.relnamespace = n.oid
    where n.nspname = 'public' and c.relkind in ('r', 'p', 'v', 'm', 'f')
),

found_columns as (
    select
        t.table_name,
        a.attname as column_name,
        concat(
            a.attname, ' ',
            replace(replace(replace(
                pg_catalog.format_type(a.atttypid, a.atttypmod),
                'character varying', 'varchar'
            ),
            'timestamp with time zone', 'timestamptz'),
            'time without time zone', 'time'),
            case when a.attnotnull then ' not null' end,
            ' default ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid),
            case when a.attidentity <> '' then ' identity' end,
            case when a.attgenerated <> '' then ' generated' end,
            case when a.attcollation <> y.typcollation then ' with another collation' end
        ) as definition
    from found_tables as t
    inner join pg_catalog.pg_attribute as a on t.oid = a.attrelid and a.attnum > 0 and not a.attisdropped
    inner join pg_catalog.pg_type as y on a.atttypid = y.oid
    left join pg_catalog.pg_attrdef as d on a.attrelid = d.adrelid and a.attnum = d.adnum
),

column_differences as (
    select
        coalesce(w.table_name, f.table_name) as table_name,
        case
            when f.column_name is null then 'missing: ' || w.definition
            when w.column_name is null then 'unexpected: ' || f.definition
            else 'wanted: ' || w.definition || ', found: ' || f.definition
        end as difference
    from (
        select
            t.table_name,
            c.definition,
            split_part(c.definition, ' ', 1) as column_name
        from wanted_tables as t, unnest(t.columns) as c (definition)
    ) as w
    full join (
        select c.* from found_columns as c
        where c.table_name in (select t.table_name from wanted_tables as t)
    ) as f on w.table_name = f.table_name and w.column_name = f.column_name
    where w.definition is distinct from f.definition
),

table_checks as (
    select
        w.gate_id,
        'table ' || w.table_name as check_name,
        case
            when f.oid is null and w.gate_id = 'B-02' then 'N/A'
            when f.oid is not null and f.relkind = 'r' and f.relpersistence = 'p' and d.differences is null
                then 'PASS'
            else 'FAIL'
        end as status,
        case
            when f.oid is null and w.gate_id = 'B-02' then 'not there yet: batch B makes it'
            when f.oid is null then 'missing: run sql/phase2/001'
            when f.relkind <> 'r' then 'not an ordinary table'
            when f.relpersistence <> 'p' then 'not a permanent, logged table'
            else coalesce(d.differences, '')
        end as detail
    from wanted_tables as w
    left join found_tables as f on w.table_name = f.table_name
    left join (
        select
            table_name,
            string_agg(difference, '; ' order by difference collate "C") as differences
        from column_differences
        group by table_name
    ) as d on w.table_name = d.table_name
),

wanted_constraints as (
    select
        k.table_name,
        k.table_name || '_pkey' as name,
        format('PRIMARY KEY (%s)', k.column_name) as definition
    from wanted_primary_keys as k

    union all

    select
        u.table_name,
        u.name,
        u.definition
    from (values ('catalog_product', 'catalog_product_slug_key', 'UNIQUE (slug)')) as u (table_name, name, definition)

    union all

    select
        k.table_name,
        k.table_name || '_' || k.column_name || '_fkey' as name,
        format('FOREIGN KEY (%1$s) REFERENCES public.%2$s(%1$s)', k.column_name, k.referenced) as definition
    from wanted_foreign_keys as k

    union all

    select
        k.table_name,
        k.name,
        format(
            'CHECK (((%s)::text = ANY ((ARRAY[%s])::text[])))',
            k.column_name,
            (
                select string_agg(quote_literal(a.value) || '::character varying', ', ' order by a.position)
                from unnest(k.accepted) with ordinality as a (value, position)
            )
        ) as definition
    from wanted_checks as k
),

found_constraints as (
    select
        t.table_name,
        c.conname as name,
        pg_catalog.pg_get_constraintdef(c.oid) as definition
    from pg_catalog.pg_constraint as c
    inner join found_tables as t on c.conrelid = t.oid
),

wanted_index_definitions as (
    select
        i.table_name,
        i.name,
        format(
            'CREATE %sINDEX %s ON public.%s USING btree %s',
            case when i.is_unique then 'UNIQUE ' end, i.name, i.table_name, i.definition
        ) as definition
    from wanted_indexes as i
),

found_indexes as (
    select
        t.table_name,
        c.relname as name,
        pg_catalog.pg_get_indexdef(i.indexrelid) || case when i.indisvalid then '' else ' (invalid)' end as definition
    from pg_catalog.pg_index as i
    inner join pg_catalog.pg_class as c on i.indexrelid = c.oid
    inner join found_tables as t on i.indrelid = t.oid
),

object_checks as (
    select
        w.table_name,
        'constraint ' || w.name as check_name,
        w.definition as wanted,
        f.definition as found
    from wanted_constraints as w
    left join found_constraints as f on w.table_name = f.table_name and w.name = f.name

    union all

    select
        w.table_name,
        'index ' || w.name as check_name,
        w.definition as wanted,
        f.definition as found
    from wanted_index_definitions as w
    left join found_indexes as f on w.table_name = f.table_name and w.name = f.name
),

trigger_checks as (
    select
        'A-02' as gate_id,
        'no triggers on the canonical tables' as check_name,
        case when count(g.oid) = 0 then 'PASS' else 'FAIL' end as status,
        coalesce(
            string_agg(format('%s on %s', g.tgname, f.table_name), ', ' order by f.table_name, g.tgname), ''
        ) as detail
    from wanted_tables as w
    inner join found_tables as f on w.table_name = f.table_name
    left join pg_catalog.pg_trigger as g on f.oid = g.tgrelid and not g.tgisinternal
),

final as (
    select
        t.gate_id,
        t.check_name,
        t.status,
        t.detail
    from table_checks as t

    union all

    select
        case when w.gate_id = 'A-01' then 'A-02' else w.gate_id end as gate_id,
        o.check_name,
        case
            when (o.found is not distinct from o.wanted) then 'PASS'
            when w.gate_id = 'B-02' and f.oid is null then 'N/A'
            else 'FAIL'
        end as status,
        case
            when (o.found is not distinct from o.wanted) then ''
            when o.found is null then 'missing on ' || o.table_name
            else 'wanted: ' || o.wanted || ', found: ' || o.found
        end as detail
    from object_checks as o
    inner join wanted_tables as w on o.table_name = w.table_name
    left join found_tables as f on o.table_name = f.table_name

    union all

    select
        g.gate_id,
        g.check_name,
        g.status,
        g.detail
    from trigger_checks as g
)

select
    gate_id,
    check_name,
    status,
    detail
from final
order by gate_id collate "C", check_name collate "C";

commit;
