-- Our own state, schema phase2: what a run is, what it decided and why. Idempotent and additive: run at every start.
-- Nothing canonical stands here; dropping the schema leaves the 17 tables and the dictionaries as they are.

create schema if not exists phase2;
comment on schema phase2 is
'State of the migration itself: runs, gates, landings, snapshots. The canonical tables are in public.';

-- Row keys are UUIDv5 (SHA-1). An operator may have installed pgcrypto in another schema already; it stays there.
create extension if not exists pgcrypto schema phase2;

do $$
declare
    home text := (
        select n.nspname from pg_catalog.pg_extension as e
        join pg_catalog.pg_namespace as n on n.oid = e.extnamespace
        where e.extname = 'pgcrypto'
    );
begin
    execute format(
        'create or replace function phase2.sha1(value bytea) returns bytea '
        'language sql immutable strict parallel safe return %I.digest(value, ''sha1'')', home
    );
end
$$;
comment on function phase2.sha1(bytea) is 'pgcrypto.digest(value, ''sha1''), wherever pgcrypto is installed.';

create table if not exists phase2.run_context (
    only_row boolean not null default true,
    as_of date,
    run_id uuid,
    set_at timestamptz not null default now(),
    constraint run_context_pkey primary key (only_row),
    constraint ck_run_context_only_row check (only_row)
);
comment on table phase2.run_context is
'The facts of the run at work that models read: at most one row, set by the runner before a batch.';
comment on column phase2.run_context.as_of is 'Date in Bali that the fulfilment rules take as today (mapping 4.7).';

create table if not exists phase2.batch_state (
    batch text not null,
    status text not null,
    run_id uuid,
    as_of date,
    started_at timestamptz,
    ended_at timestamptz,
    blocked_by text[],
    report_json_path text,
    report_md_path text,
    report_html_path text,
    report_digest text,
    dbt_digest text,
    error_message text,
    updated_at timestamptz not null default now(),
    constraint batch_state_pkey primary key (batch),
    constraint ck_batch_state_status
    check (status in ('PENDING', 'RUNNING', 'PASS', 'FAIL', 'HOLD', 'ERROR', 'ROLLED_BACK'))
);
comment on table phase2.batch_state is
'Where each batch stands now, one row a batch. X+1 starts only when X is PASS. History: migration_run_log.';
comment on column phase2.batch_state.blocked_by is 'Ids of the gates that failed, or of the batch that holds this one.';
comment on column phase2.batch_state.report_digest is 'SHA-256 of the JSON report.';
comment on column phase2.batch_state.dbt_digest is 'SHA-256 of the dbt project that ran.';

create table if not exists phase2.gate_results (
    gate_result_id bigint generated always as identity,
    run_id uuid not null,
    evaluated_at timestamptz not null default now(),
    batch text not null,
    gate_id text not null,
    numerator numeric,
    denominator numeric,
    value numeric,
    comparator text not null,
    threshold numeric,
    status text not null,
    note text,
    constraint gate_results_pkey primary key (gate_result_id),
    constraint ck_gate_results_status check (status in ('PASS', 'FAIL', 'N/A'))
);
create index if not exists ix_gate_results_batch_evaluated
on phase2.gate_results (batch, evaluated_at desc, gate_id);
comment on table phase2.gate_results is 'Verdicts, append only: one row a gate and evaluation.';
comment on column phase2.gate_results.threshold is 'The registry''s threshold at that time.';

create table if not exists phase2.exceptions (
    exception_id bigint generated always as identity,
    run_id uuid not null,
    evaluated_at timestamptz not null default now(),
    batch text,
    gate_id text not null,
    entity text not null,
    key text not null,
    status text not null,
    detail jsonb,
    constraint exceptions_pkey primary key (exception_id)
);
create index if not exists ix_exceptions_run_gate on phase2.exceptions (run_id, gate_id);
create index if not exists ix_exceptions_batch_evaluated on phase2.exceptions (batch, evaluated_at);
comment on table phase2.exceptions is
'The full list behind a gate: one row a key with a status. Reports show at most 100 of them, masked. Kept: of each '
'batch those of its latest evaluation, and for 90 days those of evaluations with a failed gate.';
comment on column phase2.exceptions.detail is 'Both values and the rule. May hold personal data: mask before showing.';

create table if not exists phase2.landing_runs (
    landing_id uuid not null,
    source text not null,
    run_id uuid,
    source_database text not null,
    source_host text,
    source_port integer,
    source_version text not null,
    source_system_identifier text,
    snapshot_at timestamptz not null,
    snapshot_txid text not null,
    ddl_digest text not null,
    row_count bigint not null,
    byte_count bigint not null,
    seconds numeric not null,
    landed_at timestamptz not null default clock_timestamp(),
    landing_no bigint generated always as identity,
    constraint landing_runs_pkey primary key (landing_id, source)
);
-- additive: databases from before the columns get them here
alter table phase2.landing_runs add column if not exists content_digest text;
alter table phase2.landing_runs
add column if not exists versions_of text,
add column if not exists why_whole text;
comment on column phase2.landing_runs.content_digest is
'SHA-256 of what is landed: of the row versions of all tables (of the COPY streams where the source shows none). Equal '
'digests: the same rows.';
comment on column phase2.landing_runs.versions_of is
'Cluster, timeline and database whose row versions phase2.landing_ranges holds, and a digest of what its columns mean; '
'null where they cannot be told apart.';
comment on column phase2.landing_runs.why_whole is
'Why every row was copied; null: only the rows that had changed since the landing before.';
comment on table phase2.landing_runs is
'Landings that were committed, one row a source. Written in the transaction that replaced the rows, so the latest '
'row of a source describes exactly what its landing schema holds.';
comment on column phase2.landing_runs.landing_id is
'Shared by the sources of one landing; where the latest ids of the two differ, the landing is half and void.';
comment on column phase2.landing_runs.snapshot_txid is 'pg_current_snapshot() of the source''s read-only transaction.';
comment on column phase2.landing_runs.source_system_identifier is
'Cluster identity from pg_control_system(), null where it may not be read.';
comment on column phase2.landing_runs.ddl_digest is 'SHA-256 of the sql/landing file that was in force.';
comment on column phase2.landing_runs.landing_no is 'Order of landings; the largest of a source is its latest.';

create table if not exists phase2.landing_tables (
    landing_id uuid not null,
    source text not null,
    table_name text not null,
    run_id uuid,
    row_count bigint not null,
    byte_count bigint not null,
    seconds numeric not null,
    constraint landing_tables_pkey primary key (landing_id, source, table_name),
    constraint landing_tables_landing_runs_fkey foreign key (landing_id, source)
    references phase2.landing_runs (landing_id, source)
);
alter table phase2.landing_tables add column if not exists content_digest text;
comment on table phase2.landing_tables is 'What each landing brought, table by table.';
comment on column phase2.landing_tables.content_digest is
'Of the row versions in the database that landing_runs.versions_of names, or of the COPY stream. Equal: the same rows.';
comment on column phase2.landing_tables.row_count is
'Rows at the commit. Unlogged tables are empty after a server''s crash, so models run only where counts agree.';
comment on column phase2.landing_tables.byte_count is 'Bytes of the binary COPY stream.';

create unlogged table if not exists phase2.landing_ranges (
    source text not null,
    table_name text not null,
    range_no bigint not null,
    row_count integer not null,
    version bigint not null,
    constraint landing_ranges_pkey primary key (source, table_name, range_no)
);
comment on table phase2.landing_ranges is
'Of what is landed, for every sixteen primary keys: how many rows, and one number made of their versions there.';

create unlogged table if not exists phase2.landed_changes (
    change_no bigint generated always as identity,
    source text not null,
    table_name text not null,
    pk bigint not null,
    kind text not null,
    parent bigint,
    booking_key uuid,
    for_batch text,
    constraint landed_changes_pkey primary key (change_no),
    constraint ck_landed_changes_kind check (kind in ('insert', 'update', 'delete', 'touched'))
);
comment on table phase2.landed_changes is
'Rows that landings wrote or removed since all rows were copied: what a batch that follows changes starts from. '
'"touched": what one batch followed, for the other.';
comment on column phase2.landed_changes.parent is
'The id that leads to the booking: its own, its booking''s, item''s or finance''s; a row that moved has two lines.';

create unlogged table if not exists phase2.touched_bookings (
    source_system text not null,
    booking_id bigint not null,
    round integer not null,
    constraint touched_bookings_pkey primary key (source_system, booking_id)
);
comment on table phase2.touched_bookings is
'Bookings of the sources that the batch at work computes again, when it follows changes (bridge/follow.py).';
comment on column phase2.touched_bookings.round is 'How many steps it is away from what has changed.';

create unlogged table if not exists phase2.touched_keys (
    booking_key uuid not null,
    round integer not null,
    constraint touched_keys_pkey primary key (booking_key)
);
comment on table phase2.touched_keys is
'Bookings of the bridge that a batch which follows changes may write or remove from.';

create unlogged table if not exists phase2.touched_names (
    channel_code text not null,
    external_ref text not null,
    round integer not null,
    constraint touched_names_pkey primary key (channel_code, external_ref)
);
comment on table phase2.touched_names is 'Identities that the touched bookings have, had, or could be given.';

create unlogged table if not exists phase2.touched_subjects (
    source_system text not null,
    source_table text not null,
    source_pk text not null,
    constraint touched_subjects_pkey primary key (source_system, source_table, source_pk)
);
comment on table phase2.touched_subjects is
'What the rows of the queue that a batch which follows changes may write are about; of identities the row''s key.';

drop table if exists phase2.bridge_ranges, phase2.measured_ranges;

create unlogged table if not exists phase2.bridge_keys (
    who text not null,
    part text not null,
    key uuid not null,
    marks bigint not null,
    constraint bridge_keys_pkey primary key (who, part, key)
);
comment on table phase2.bridge_keys is
'Of each booking of the bridge (and each row of queue and events) one number made of its rows'' keys, as "follow" '
'(batches D and E) or "measure" (their gates) saw them last: what tells that a row is gone (bridge/written.py).';

create unlogged table if not exists phase2.landed_moves (
    source text not null,
    table_name text not null,
    marks bigint not null,
    constraint landed_moves_pkey primary key (source, table_name)
);
comment on table phase2.landed_moves is
'One number made of the keys that landings added, removed or moved since all rows were copied: any other change of a '
'landed table''s keys is another''s.';

create table if not exists phase2.booking_freshness (
    booking_key uuid not null,
    last_event_time timestamptz,
    last_core_write_at timestamptz,
    constraint booking_freshness_pkey primary key (booking_key)
);
comment on table phase2.booking_freshness is
'How fresh the bridge is for a booking (mapping 4.13). A backfill older than both fills only nulls.';
comment on column phase2.booking_freshness.last_event_time is 'Largest event_time_normalized applied.';
comment on column phase2.booking_freshness.last_core_write_at is 'Time of the last write through the core API.';

create table if not exists phase2.booking_source_times (
    booking_key uuid not null,
    source_updated_at timestamptz not null,
    constraint booking_source_times_pkey primary key (booking_key)
);
comment on table phase2.booking_source_times is
'How fresh the backfill is that last wrote a booking: the largest updated_at of all its candidates (mapping 4.13).';

create table if not exists phase2.status_snapshot (
    booking_key uuid not null,
    customer_payment_status varchar(32) not null,
    ops_fulfillment_status varchar(32) not null,
    core_updated_at timestamptz not null,
    has_state boolean not null,
    state_ops_fulfillment_status varchar(32),
    is_paid_flag boolean,
    paid_at timestamptz,
    state_version integer,
    state_updated_from_source varchar(32),
    state_updated_at timestamptz,
    run_id uuid,
    taken_at timestamptz not null default now(),
    constraint status_snapshot_pkey primary key (booking_key)
);
comment on table phase2.status_snapshot is
'Statuses, flags and times from before batch E first wrote a booking; its rollback restores and then forgets them.';
comment on column phase2.status_snapshot.has_state is 'Whether the booking had an ops_booking_state row.';

create table if not exists phase2.review_snapshot (
    queue_key uuid not null,
    review jsonb not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint review_snapshot_pkey primary key (queue_key)
);
comment on table phase2.review_snapshot is
'Review rows as batch D left them: batch E writes reviews too, and its rollback puts these back.';

create table if not exists phase2.model_changes (
    model_change_id bigint generated always as identity,
    run_id uuid,
    model text not null,
    target text not null,
    inserted bigint not null default 0,
    updated bigint not null default 0,
    removed bigint not null default 0,
    at timestamptz not null default clock_timestamp(),
    constraint model_changes_pkey primary key (model_change_id)
);
create index if not exists ix_model_changes_run on phase2.model_changes (run_id, model);
comment on table phase2.model_changes is
'Rows that a bridge model wrote in a run; all zero is a rerun that changed nothing.';

create table if not exists phase2.source_leftovers (
    leftover_key uuid not null,
    source_system text not null,
    source_table text not null,
    source_pk text not null,
    attributes jsonb not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint source_leftovers_pkey primary key (leftover_key),
    constraint source_leftovers_source_key unique (source_system, source_table, source_pk)
);
comment on table phase2.source_leftovers is
'What the sources hold and the bridge has no column for (mapping 3.5): ops-only attributes, galleries, itineraries.';

create table if not exists phase2.unmapped_queue_dump (
    dump_id bigint generated always as identity,
    dumped_at timestamptz not null default now(),
    batch text not null,
    run_id uuid,
    queue_key uuid not null,
    queue_type varchar(64) not null,
    channel_code varchar(32),
    source_system varchar(32) not null,
    source_table varchar(64) not null,
    source_pk varchar(128) not null,
    reason_code varchar(64) not null,
    reason_detail text,
    status varchar(32) not null,
    payload jsonb,
    resolved_by varchar(128),
    resolved_at timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint unmapped_queue_dump_pkey primary key (dump_id)
);
create index if not exists ix_unmapped_queue_dump_batch on phase2.unmapped_queue_dump (batch, dumped_at);
comment on table phase2.unmapped_queue_dump is
'Queue rows as they were when a rollback removed them, kept for investigation.';

create table if not exists phase2.legacy_query_results (
    legacy_query_result_id bigint generated always as identity,
    run_id uuid not null,
    phase text not null,
    source text not null,
    query_name text not null,
    succeeded boolean not null,
    row_count bigint,
    seconds numeric,
    error_message text,
    ran_at timestamptz not null default now(),
    constraint legacy_query_results_pkey primary key (legacy_query_result_id),
    constraint ck_legacy_query_results_phase check (phase in ('BEFORE', 'AFTER'))
);
create index if not exists ix_legacy_query_results_run on phase2.legacy_query_results (run_id, phase);
comment on table phase2.legacy_query_results is
'The legacy apps'' statements, run before and after batch A (gate A-03): none may fail.';

create table if not exists phase2.step_log (
    step_log_id bigint generated always as identity,
    run_id uuid not null,
    batch text not null,
    step text not null,
    kind text not null,
    checksum text,
    status text not null,
    started_at timestamptz not null,
    ended_at timestamptz,
    rows bigint,
    detail jsonb not null default '{}',
    error_message text,
    recorded boolean not null default false,
    constraint step_log_pkey primary key (step_log_id),
    constraint ck_step_log_status check (status in ('RUNNING', 'SUCCEEDED', 'FAILED'))
);
create index if not exists ix_step_log_run on phase2.step_log (run_id, step_log_id);
comment on table phase2.step_log is
'One row per step that ran, with its checksum, rows, times and error; RUNNING without an end: it was killed.';

create table if not exists phase2.pauses (
    pause_no bigint generated always as identity,
    run_id uuid not null,
    batch text not null,
    step text not null,
    reason text not null,
    began_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    constraint pauses_pkey primary key (pause_no)
);
create index if not exists ix_pauses_run on phase2.pauses (run_id);
comment on table phase2.pauses is
'When a run waited for the server to recover (bridge/breath.py), and why; without an end: it waits, or was killed.';

create table if not exists phase2.warehouse_state (
    part text not null,
    digest text not null,
    built_at timestamptz not null default now(),
    constraint warehouse_state_pkey primary key (part)
);
comment on table phase2.warehouse_state is
'What dbt has made, and of what (ground, recon views, batch D''s working tables): not made again while that holds.';

create unlogged table if not exists phase2.since_crash (
    since_crash uuid not null default gen_random_uuid(),
    constraint since_crash_pkey primary key (since_crash)
);
comment on table phase2.since_crash is
'A mark that a crash of the server wipes out, as it empties every unlogged table: working tables, landed rows.';

create table if not exists phase2.gate_inputs (
    gate_input_id bigint generated always as identity,
    run_id uuid not null,
    batch text not null,
    gate_id text not null,
    item text not null,
    passed boolean not null,
    detail jsonb,
    recorded_at timestamptz not null default now(),
    constraint gate_inputs_pkey primary key (gate_input_id)
);
create index if not exists ix_gate_inputs_gate on phase2.gate_inputs (gate_id, gate_input_id desc);
comment on table phase2.gate_inputs is
'What only the run itself can see (preflight checks, rows that a rerun of the seeds added): one row a gate and item. '
'The rows of a gate''s latest run are its measure.';

create table if not exists phase2.paid_bookings (
    booking_key uuid not null,
    captures uuid[] not null default '{}',
    run_id uuid,
    noted_at timestamptz not null default now(),
    constraint paid_bookings_pkey primary key (booking_key)
);
comment on table phase2.paid_bookings is
'Bookings that were PAID at the last verdict of batch E, and their captures: what gate E-04 holds later runs against. '
'Emptied by the rollback of batch E.';

create or replace function phase2.dictionary_codes()
returns table (dictionary text, code text)
language plpgsql stable
as $$
declare
    known record;
begin
    for known in
        select c.relname as table_name, a.attname as column_name
        from pg_catalog.pg_class as c
        join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum = 1
        where
            c.relnamespace = (select n.oid from pg_catalog.pg_namespace as n where n.nspname = 'public')
            and c.relkind = 'r' and (c.relname = 'channel_registry' or c.relname like 'ref\_%')
    loop
        return query execute format('select %L::text, %I::text from public.%I', known.table_name, known.column_name, known.table_name);
    end loop;
end
$$;
comment on function phase2.dictionary_codes() is
'The codes of channel_registry and of each ref_ dictionary that exists: a missing one has no rows instead of an error.';

create table if not exists phase2.audit_sample (
    line_no bigint generated always as identity,
    capture_id text,
    amount numeric,
    currency text,
    status text,
    captured_at timestamptz,
    constraint audit_sample_pkey primary key (line_no)
);
comment on table phase2.audit_sample is
'A PayPal capture export as it was given (mapping 5.6); empty when none was: then payloads are compared.';
