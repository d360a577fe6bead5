-- Rollback of batch H: switches writes through the core off, for all, in one transaction; the next run of the batch
-- begins with its first rung again. Every process follows within seconds and writes bstadmin alone; what is open is
-- taken there by the worker, and the core gets it when the flag is on again. Nothing is removed. The web emitter stays
-- as far on as it is: it is batch F's, and no event waits for H. Idempotent, and good for psql in an incident.

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
    ('OPS_WRITE_CORE_ENABLED')
) as ours (flag)
left join phase2.flags as f on ours.flag = f.flag
where f.flag is null or f.enabled or f.rollout <> '{}';

insert into phase2.flags as f (flag, enabled, rollout, reason, changed_by)
select
    s.flag,
    false as enabled,
    '{}' as rollout,
    'rollback of batch H' as reason,
    current_user as changed_by
from pg_temp.switched_off as s
on conflict (flag) do update
    set
        enabled = excluded.enabled,
        rollout = excluded.rollout,
        reason = excluded.reason,
        changed_by = excluded.changed_by,
        changed_at = now();

select
    'phase2.flags' as table_name,
    count(l.entry_no) as rows
from pg_temp.switched_off as s
cross join
    lateral phase2.log(
        'flag', null, s.flag, null, current_user,
        jsonb_build_object(
            'before', s.before, 'after', jsonb_build_object('enabled', false), 'reason', 'rollback of batch H'
        )
    ) as l;

commit;
