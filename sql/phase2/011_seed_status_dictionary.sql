-- Batch B: the five status dictionaries, made and filled: mapping, ingest, replay, dead letter, unmapped queue.
-- No foreign key points at them; 003's checks enforce the lists.
-- Idempotent: adds what is missing, restores a label that was changed, writes nothing otherwise.

begin;
set local lock_timeout = '5s';
set local search_path = '';

create table if not exists public.ref_mapping_status (
    status_code varchar(32) not null,
    status_label varchar(128) not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint ref_mapping_status_pkey primary key (status_code)
);

insert into public.ref_mapping_status as t (status_code, status_label)
select
    v.code,
    v.label
from (
    values
    ('UNMAPPED', 'Unmapped'),
    ('MAPPED', 'Mapped'),
    ('REVIEW_REQUIRED', 'Review required')
) as v (code, label)
left join public.ref_mapping_status as x on v.code = x.status_code
where x.status_label is distinct from v.label
on conflict (status_code) do update
    set status_label = excluded.status_label, updated_at = now();

create table if not exists public.ref_ingest_status (
    status_code varchar(32) not null,
    status_label varchar(128) not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint ref_ingest_status_pkey primary key (status_code)
);

insert into public.ref_ingest_status as t (status_code, status_label)
select
    v.code,
    v.label
from (
    values
    ('RECEIVED', 'Received'),
    ('PROCESSING', 'Processing'),
    ('DONE', 'Done'),
    ('FAILED', 'Failed')
) as v (code, label)
left join public.ref_ingest_status as x on v.code = x.status_code
where x.status_label is distinct from v.label
on conflict (status_code) do update
    set status_label = excluded.status_label, updated_at = now();

create table if not exists public.ref_replay_status (
    status_code varchar(32) not null,
    status_label varchar(128) not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint ref_replay_status_pkey primary key (status_code)
);

insert into public.ref_replay_status as t (status_code, status_label)
select
    v.code,
    v.label
from (
    values
    ('READY', 'Ready'),
    ('REPLAYING', 'Replaying'),
    ('SUCCEEDED', 'Succeeded'),
    ('FAILED', 'Failed')
) as v (code, label)
left join public.ref_replay_status as x on v.code = x.status_code
where x.status_label is distinct from v.label
on conflict (status_code) do update
    set status_label = excluded.status_label, updated_at = now();

create table if not exists public.ref_dead_letter_status (
    status_code varchar(32) not null,
    status_label varchar(128) not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint ref_dead_letter_status_pkey primary key (status_code)
);

insert into public.ref_dead_letter_status as t (status_code, status_label)
select
    v.code,
    v.label
from (
    values
    ('OPEN', 'Open'),
    ('READY', 'Ready'),
    ('REPLAYING', 'Replaying'),
    ('SUCCEEDED', 'Succeeded'),
    ('FAILED', 'Failed'),
    ('RESOLVED', 'Resolved'),
    ('CLOSED', 'Closed')
) as v (code, label)
left join public.ref_dead_letter_status as x on v.code = x.status_code
where x.status_label is distinct from v.label
on conflict (status_code) do update
    set status_label = excluded.status_label, updated_at = now();

create table if not exists public.ref_unmapped_queue_status (
    status_code varchar(32) not null,
    status_label varchar(128) not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint ref_unmapped_queue_status_pkey primary key (status_code)
);

insert into public.ref_unmapped_queue_status as t (status_code, status_label)
select
    v.code,
    v.label
from (
    values
    ('OPEN', 'Open'),
    ('IN_REVIEW', 'In review'),
    ('RESOLVED', 'Resolved'),
    ('CLOSED', 'Closed')
) as v (code, label)
left join public.ref_unmapped_queue_status as x on v.code = x.status_code
where x.status_label is distinct from v.label
on conflict (status_code) do update
    set status_label = excluded.status_label, updated_at = now();

commit;
