-- Rollback of batch F: switches off what lets events in, moves them and sends them, in one transaction; the emitters
-- begin small again. Every process follows within seconds. No event is touched: what is pending or failed waits in the
-- log for the next run of the batch, or for a replay. Idempotent, and good for psql in an incident.

begin;
set local lock_timeout = '5s';
set local search_path = '';

lock table phase2.flags in share row exclusive mode;

create temporary table switched_off on commit drop as
select
    ours.flag,
    to_jsonb(f) - array['flag', 'reason', 'changed_by', 'changed_at'] as before
from (
    values
    ('INGEST_QUEUE_ENABLED'),
    ('INGEST_WEBHOOK_ENABLED'),
    ('INGEST_REPLAY_ENABLED'),
    ('WEB_EMIT_BOOKING_EVENT_ENABLED'),
    ('EMAIL_PIPELINE_CORE_ENABLED')
) as ours (flag)
left join phase2.flags as f on ours.flag = f.flag
where f.flag is null or f.enabled or f.rollout <> '{}';

insert into phase2.flags as f (flag, enabled, rollout, reason, changed_by)
select
    s.flag,
    false as enabled,
    '{}' as rollout,
    'rollback of batch F' as reason,
    current_user as changed_by
from pg_temp.switched_off as s
on conflict (flag) do update
    set
        enabled = excluded.enabled,
        rollout = excluded.rollout,
        reason = excluded.reason,
        changed_by = excluded.changed_by,
        changed_at = now();

drop table if exists dbt_recon.recon_f_reading;

select
    'phase2.flags' as table_name,
    count(l.entry_no) as rows
from pg_temp.switched_off as s
cross join
    lateral phase2.log(
        'flag', null, s.flag, null, current_user,
        jsonb_build_object(
            'before', s.before, 'after', jsonb_build_object('enabled', false), 'reason', 'rollback of batch F'
        )
    ) as l;

commit;
