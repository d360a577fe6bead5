-- Batch A, before 001: may the schema be changed now? (gate A-00).
-- Reads only; one row a check: gate, what, PASS or FAIL, why.
-- Inputs, as settings of the session (a missing one fails its check):
--   phase2.disk_total_bytes, phase2.disk_used_bytes   capacity of the disk that holds the database
--   phase2.server_time_zone                           the server's own zone; without it, the session's is judged
-- By hand: PGOPTIONS='-c phase2.disk_total_bytes=… -c phase2.disk_used_bytes=…' psql -f 000_precheck_readiness.sql

begin;
set local transaction_read_only = on;
set local search_path = '';

with inputs as (
    select
        nullif(trim(current_setting('phase2.disk_total_bytes', true)), '') as total_text,
        nullif(trim(current_setting('phase2.disk_used_bytes', true)), '') as used_text,
        coalesce(
            nullif(trim(current_setting('phase2.server_time_zone', true)), ''), current_setting('TimeZone')
        ) as time_zone,
        current_setting('server_version_num')::integer as version_number,
        current_setting('server_version') as version_text
),

capacity as (
    select
        case when i.total_text ~ '^[0-9]{1,18}$' then i.total_text::numeric end as total_bytes,
        case when i.used_text ~ '^[0-9]{1,18}$' then i.used_text::numeric end as used_bytes
    from inputs as i
),

sessions as (
    select
        a.pid,
        a.usename,
        a.xact_start,
        a.query = '<insufficient privilege>' as is_hidden
    from pg_catalog.pg_stat_activity as a
    where a.datname = current_database() and a.usesysid is not null and a.pid <> pg_backend_pid()
),

old_transactions as (
    select
        'pid ' || s.pid as who,
        now() - s.xact_start as age
    from sessions as s
    where s.xact_start < now() - interval '15 minutes'

    union all

    select
        'prepared transaction ' || p.gid as who,
        now() - p.prepared as age
    from pg_catalog.pg_prepared_xacts as p
    where p.database = current_database() and p.prepared < now() - interval '15 minutes'
),

-- Waiting for an advisory lock is an application's own queueing, not a blocked table.
blocked as (
    select
        l.pid,
        coalesce(l.relation::regclass::text, l.locktype) as waits_for
    from pg_catalog.pg_locks as l
    inner join sessions as s on l.pid = s.pid
    where not l.granted and l.locktype <> 'advisory'
),

checks as (
    select
        1 as position,
        'long_transactions' as check_name,
        not exists (select 1 from old_transactions)
        and not exists (
            select 1 from sessions
            where is_hidden
        ) as passed,
        case
            when exists (select 1 from old_transactions)
                then (
                    select
                        string_agg(
                            format('%s open for %s min', o.who, trunc(extract(epoch from o.age) / 60)),
                            ', ' order by o.age desc
                        )
                    from old_transactions as o
                )
            when
                exists (
                    select 1 from sessions
                    where is_hidden
                )
                then 'other sessions'' transactions cannot be seen: grant pg_read_all_stats to ' || current_user
            else 'none older than 15 min'
        end as detail

    union all

    select
        2 as position,
        'blocked_locks' as check_name,
        not exists (select 1 from blocked) as passed,
        coalesce(
            (
                select string_agg(format('pid %s waits for %s', b.pid, b.waits_for), ', ' order by b.pid)
                from blocked as b
            ),
            'none'
        ) as detail

    union all

    select
        3 as position,
        'free_disk' as check_name,
        coalesce(
            c.total_bytes > 0 and c.used_bytes <= c.total_bytes
            and (c.total_bytes - c.used_bytes) / nullif(c.total_bytes, 0) >= 0.30, false
        ) as passed,
        case
            when i.total_text is null or i.used_text is null
                then 'inputs disk_total_bytes and disk_used_bytes are missing'
            when c.total_bytes is null or c.used_bytes is null
                then 'inputs disk_total_bytes and disk_used_bytes must be whole numbers of bytes'
            when c.total_bytes = 0 or c.used_bytes > c.total_bytes
                then 'inputs make no sense: more is used than there is'
            else format(
                '%s %% free, at least 30 %% wanted',
                trunc((c.total_bytes - c.used_bytes) * 100 / nullif(c.total_bytes, 0), 1)
            )
        end as detail
    from inputs as i, capacity as c

    union all

    select
        4 as position,
        'server_version' as check_name,
        i.version_number >= 150000 as passed,
        format('PostgreSQL %s, 15 or later wanted', i.version_text) as detail
    from inputs as i

    union all

    select
        5 as position,
        'time_zone' as check_name,
        i.time_zone in (
            'UTC', 'Etc/UTC', 'UCT', 'Etc/UCT', 'Universal', 'Etc/Universal', 'Zulu', 'Etc/Zulu', 'GMT', 'Etc/GMT'
        ) as passed,
        format('%s, UTC wanted', i.time_zone) as detail
    from inputs as i
)

select
    'A-00' as gate_id,
    c.check_name,
    case when c.passed then 'PASS' else 'FAIL' end as status,
    c.detail
from checks as c
order by c.position;

commit;
