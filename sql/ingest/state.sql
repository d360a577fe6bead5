-- What ingestion remembers beside the canonical tables (schema phase2). Idempotent and additive, run at every start.

create table if not exists phase2.ingest_nonces (
    nonce text not null,
    idempotency_key text not null,
    payload_hash text not null,
    seen_at timestamptz not null default now(),
    constraint ingest_nonces_pkey primary key (nonce)
);
create index if not exists ix_ingest_nonces_seen_at on phase2.ingest_nonces (seen_at);
comment on table phase2.ingest_nonces is
'Nonces of the last 10 minutes: a second use is refused, but for the byte-identical redelivery.';

create table if not exists phase2.ingest_keys (
    idempotency_key text not null,
    payload_hash text not null,
    event_key uuid not null,
    answer jsonb not null,
    answered_at timestamptz not null default now(),
    constraint ingest_keys_pkey primary key (idempotency_key)
);
create index if not exists ix_ingest_keys_answered_at on phase2.ingest_keys (answered_at);
comment on table phase2.ingest_keys is
'The first answer to each idempotency key, given again for 35 days. Several keys may lead to one event.';

create table if not exists phase2.flags (
    flag text not null,
    enabled boolean not null,
    rollout jsonb not null default '{}',
    reason text not null,
    changed_by text not null,
    changed_at timestamptz not null default now(),
    constraint flags_pkey primary key (flag)
);
comment on table phase2.flags is
'The current state of a flag where a person or a flow has set it; without a row the environment''s default holds.';

create table if not exists phase2.drills (
    drill_id uuid not null,
    drill text not null,
    passed boolean not null,
    measured jsonb not null,
    started_at timestamptz not null,
    ended_at timestamptz not null default now(),
    run_id uuid,
    constraint drills_pkey primary key (drill_id),
    constraint drills_drill_check check (drill in ('duplicate', 'out_of_order', 'burst', 'replay', 'rollback'))
);
comment on table phase2.drills is
'What the required tests of batch F (blueprint 6.7) showed, each time. Gates F-06 and G-04 ask for the latest.';

create table if not exists phase2.watermarks (
    name text not null,
    at timestamptz not null,
    detail jsonb not null default '{}',
    updated_at timestamptz not null default now(),
    constraint watermarks_pkey primary key (name)
);
comment on table phase2.watermarks is
'How far an emitter has come: what changed up to `at` has its event, but for what its rollout left out.';
comment on column phase2.watermarks.detail is
'`rollout`: the one that held; `skipped_from`: the earliest change that it left out, read again when it changes.';
