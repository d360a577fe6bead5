-- Grain: one rule of the retention (ingest_contract 7). Overdue: something is older than its time and a day more, it
-- has not run for two days, or a run did not see it set.
with old as (
    select
        'nonces' as rule,
        count(*) as rows
    from {{ source('phase2', 'ingest_nonces') }}
    where seen_at < now() - interval '1 day 10 minutes'

    union all

    select
        'idempotency rows' as rule,
        count(*) as rows
    from {{ source('bridge', 'ingest_event_log') }} as e
    where
        e.created_at < now() - interval '36 days'
        and not phase2.is_pending(e.process_status, e.next_retry_at)
        and not exists (
            select 1 from {{ source('bridge', 'ingest_dead_letter') }} as d
            where d.event_key = e.event_key
        )

    union all

    select
        'answers' as rule,
        count(*) as rows
    from {{ source('phase2', 'ingest_keys') }} as k
    where
        k.answered_at < now() - interval '36 days'
        and not exists (
            select 1 from {{ source('bridge', 'ingest_event_log') }} as e
            where e.event_key = k.event_key
        )

    union all

    select
        'dead letters' as rule,
        count(*) as rows
    from {{ source('bridge', 'ingest_dead_letter') }}
    where status in ('SUCCEEDED', 'RESOLVED', 'CLOSED') and updated_at < now() - interval '31 days'

    union all

    select
        'unmapped queue' as rule,
        count(*) as rows
    from {{ source('bridge', 'unmapped_queue') }}
    where
        status in ('RESOLVED', 'CLOSED')
        and coalesce(resolved_at, updated_at) < now() - interval '91 days'
        and (payload ? 'resolution') is not true
),

last_run as (
    select max(ended_at) as at from {{ source('phase2', 'step_log') }}
    where detail ->> 'script' = '091_retention_cleanup.sql' and status = 'SUCCEEDED'
),

as_set as (
    select
        wanted.rule,
        coalesce(inputs.passed, false) as is_set,
        inputs.detail
    from (values ('daily'), ('completed jobs'), ('failed jobs')) as wanted (rule)
    left join {{ ref('recon_gate_inputs') }} as inputs on inputs.gate_id = 'F-05' and wanted.rule = inputs.item
)

select
    rule,
    rows > 0 as is_overdue,
    'OLDER_THAN_ITS_TIME' as status,
    jsonb_build_object('rows', rows) as detail
from old

union all

select
    'the last run' as rule,
    coalesce(last_run.at < now() - interval '2 days', true) as is_overdue,
    'DID_NOT_RUN' as status,
    jsonb_build_object('ended_at', last_run.at) as detail
from last_run

union all

select
    rule,
    not is_set as is_overdue,
    'NOT_SET' as status,
    detail
from as_set
