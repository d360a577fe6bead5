-- Batch F onwards, daily: forget what has served its time (ingest_contract 7). Idempotent.
--
-- One small transaction: at most phase2.retention_rows rows (5000 when not set) of each rule go, the oldest first,
-- rows that somebody holds are left for the next time. The runner repeats the script until it removes nothing.
-- Result: one row a rule with the rows removed.
--
--   dead letters        30 days after their last change, only terminal ones (SUCCEEDED, RESOLVED, CLOSED; a FAILED
--                       one still waits for a person)
--   idempotency rows    35 days after they came, only terminal events: DONE, or FAILED with no retry to come. An event
--                       that still has a dead letter waits for it, so it goes in a later round
--   unmapped queue      90 days after a row was resolved or closed. A row whose payload holds a resolution stays: it is
--                       a decision that every later run obeys (mapping 3.9), and without it the row would open again
--   nonces              matter for 10 minutes, and there is nothing to remove: a nonce stands only in its event's row,
--                       and its window is a condition on request_received_at (ix_ingest_event_nonce_received_at)
--   queue jobs          (14 and 30 days) live in Redis, where BullMQ removes them

begin;
set local lock_timeout = '5s';
set local search_path = '';

with settings as (
    select coalesce(nullif(current_setting('phase2.retention_rows', true), '')::integer, 5000) as most_rows
),

old_dead_letters as (
    select d.dead_letter_key
    from public.ingest_dead_letter as d
    where d.status in ('SUCCEEDED', 'RESOLVED', 'CLOSED') and d.updated_at < now() - interval '30 days'
    order by d.updated_at, d.dead_letter_key
    limit (select s.most_rows from settings as s)
    for update skip locked
),

removed_dead_letters as (
    delete from public.ingest_dead_letter as d
    using old_dead_letters as o
    where d.dead_letter_key = o.dead_letter_key
    returning 1
),

old_events as (
    select e.event_key
    from public.ingest_event_log as e
    where
        e.created_at < now() - interval '35 days'
        and (e.process_status = 'DONE' or (e.process_status = 'FAILED' and e.next_retry_at is null))
        and not exists (
            select 1 from public.ingest_dead_letter as d
            where d.event_key = e.event_key
        )
    order by e.created_at, e.event_key
    limit (select s.most_rows from settings as s)
    for update skip locked
),

removed_events as (
    delete from public.ingest_event_log as e
    using old_events as o
    where e.event_key = o.event_key
    returning 1
),

old_queue_rows as (
    select q.queue_key
    from public.unmapped_queue as q
    where
        q.status in ('RESOLVED', 'CLOSED')
        and coalesce(q.resolved_at, q.updated_at) < now() - interval '90 days'
        and (q.payload ? 'resolution') is not true
    order by q.created_at, q.queue_key
    limit (select s.most_rows from settings as s)
    for update skip locked
),

removed_queue_rows as (
    delete from public.unmapped_queue as q
    using old_queue_rows as o
    where q.queue_key = o.queue_key
    returning 1
)

select
    'dead letters' as rule,
    'ingest_dead_letter' as table_name,
    count(*) as rows
from removed_dead_letters
union all
select
    'idempotency rows' as rule,
    'ingest_event_log' as table_name,
    count(*) as rows
from removed_events
union all
select
    'unmapped queue' as rule,
    'unmapped_queue' as table_name,
    count(*) as rows
from removed_queue_rows
union all
select
    'nonces' as rule,
    'ingest_event_log' as table_name,
    0 as rows;

commit;
