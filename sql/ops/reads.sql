-- What the cutover of reads keeps (schema phase2). Idempotent and additive, run at every start.

create table if not exists phase2.ops_reads (
    minute timestamptz not null,
    instance uuid not null,
    read_name text not null,
    side text not null,
    why text not null,
    server_error boolean not null,
    latency_class smallint not null,
    reads integer not null,
    constraint ops_reads_pkey primary key (
        minute, instance, read_name, side, why, server_error, latency_class
    )
);
comment on table phase2.ops_reads is
'Answers to reads of the back office by minute, process, side and class of latency (1.1 ^ class seconds).';

create table if not exists phase2.shadow_reads (
    shadow_id uuid not null,
    compared_at timestamptz not null default now(),
    read_name text not null,
    path text not null,
    kind text not null,
    served_by text not null,
    served_seconds double precision not null,
    shadow_seconds double precision,
    outcome text not null,
    reread boolean not null default false,
    bookings integer not null default 0,
    money integer not null default 0,
    dates integer not null default 0,
    heads integer not null default 0,
    explained integer not null default 0,
    unexplained integer not null default 0,
    money_wrong integer not null default 0,
    dates_wrong integer not null default 0,
    heads_wrong integer not null default 0,
    ignored integer not null default 0,
    error text,
    constraint shadow_reads_pkey primary key (shadow_id),
    constraint shadow_reads_kind_check check (kind in ('shadow', 'calibration')),
    constraint shadow_reads_outcome_check check (outcome in ('same', 'explained', 'different', 'failed'))
);
create index if not exists ix_shadow_reads_compared_at on phase2.shadow_reads (compared_at);
comment on table phase2.shadow_reads is
'Live reads that were run on the other side too: what was compared, and what came of it. `path` holds no value.';

create table if not exists phase2.shadow_differences (
    shadow_id uuid not null,
    booking text not null,
    field text not null,
    legacy_value text,
    new_value text,
    rule text,
    constraint shadow_differences_pkey primary key (shadow_id, booking, field),
    constraint shadow_differences_shadow_id_fkey
    foreign key (shadow_id) references phase2.shadow_reads (shadow_id) on delete cascade
);
comment on table phase2.shadow_differences is
'Each difference that was still there when it was read again, values masked; `rule` explains an approved one.';

create table if not exists phase2.parity_runs (
    parity_id uuid not null,
    started_at timestamptz not null,
    ended_at timestamptz not null default now(),
    landed jsonb not null,
    bookings bigint not null,
    same bigint not null,
    explained bigint not null,
    different bigint not null,
    missing bigint not null,
    surplus bigint not null,
    constraint parity_runs_pkey primary key (parity_id)
);
comment on table phase2.parity_runs is
'Full comparisons of all bookings of bstadmin, as landed, with the read model. Gate BG-01 asks for the latest.';

create unlogged table if not exists phase2.parity_bookings (
    id text not null,
    booking_key uuid,
    status text not null,
    differences jsonb
);
comment on table phase2.parity_bookings is
'Of the latest comparison: one row per booking; differences: field -> [legacy, read model, rule or null].';

create unlogged table if not exists phase2.parity_told (
    booking_key uuid not null,
    told jsonb not null,
    constraint parity_told_pkey primary key (booking_key)
);
comment on table phase2.parity_told is
'Of the latest comparison: what the sources of a booking that has several say (ops_read.shadow_told_several).';

create or replace view phase2.told_as_landed as
select
    t.booking_key,
    t.told
from phase2.parity_told as t
where
    (
        select
            p.landed = (
                select jsonb_object_agg(l.source, l.landing_no)
                from (
                    select
                        r.source,
                        max(r.landing_no) as landing_no
                    from phase2.landing_runs as r
                    group by r.source
                ) as l
            )
        from phase2.parity_runs as p
        order by p.ended_at desc
        limit 1
    );
comment on view phase2.told_as_landed is
'phase2.parity_told while it is of the rows that are landed now, else nothing: ops_read.shadow_told looks them up.';

create or replace view phase2.told_since as
select f.booking_key
from phase2.booking_freshness as f
left join phase2.booking_source_times as s on f.booking_key = s.booking_key
where
    f.last_event_time > now() - interval '7 days'
    and f.last_event_time > coalesce(s.source_updated_at, timestamptz '-infinity');
comment on view phase2.told_since is
'Bookings of which an event of the last 7 days has told, later than what a backfill last took from the sources: that
no source says so is an approved difference until then (INGESTED).';

create table if not exists phase2.incidents (
    incident_id uuid not null,
    kind text not null,
    severity text not null,
    title text not null,
    opened_at timestamptz not null default clock_timestamp(),
    opened_by text not null,
    closed_at timestamptz,
    closed_by text,
    close_reason text,
    constraint incidents_pkey primary key (incident_id),
    constraint incidents_kind_check check (kind in ('incident', 'complaint')),
    constraint incidents_severity_check check (severity in ('critical', 'major', 'minor'))
);
comment on table phase2.incidents is
'Incidents and complaints of the people of operations. An open critical one fails gate BG-03 and holds the rollout.';

create or replace function phase2.is_only_ingested(booking_key uuid) returns boolean
language sql stable
as $$
    select exists (
        select 1
        from phase2.booking_event_times as t
        join public.booking_core as c on c.booking_key = t.booking_key
        where
            t.booking_key = is_only_ingested.booking_key
            and t.made_here
            and c.created_at > now() - interval '7 days'
            and not exists (
                select 1 from public.channel_external_refs as r
                where
                    r.entity_type = 'BOOKING' and r.entity_key = t.booking_key
                    and r.external_ref_kind in ('BALISNAP_BOOKING_ID', 'BSTADMIN_BOOKING_ID')
            )
    )
$$;
comment on function phase2.is_only_ingested(uuid) is
'Whether an event has made this booking in the last 7 days and no backfill has met it in a source: that bstadmin has not
got it is an approved difference until then (INGESTED). Who asks has looked that bstadmin has no such reference.';
