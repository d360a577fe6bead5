-- Rollback of batch G: switches the reads off, drops the read model and the indexes of script 020, in one transaction.
-- Who still asks the read model is answered by bstadmin all the same. No canonical row is touched. Idempotent, and good
-- for psql in an incident; the command switches first, and drops when the service has followed.

begin;
set local lock_timeout = '5s';
set local search_path = '';

lock table phase2.flags in share row exclusive mode;

create temporary table switched_off on commit drop as
select
    ours.flag,
    to_jsonb(f) - array['flag', 'reason', 'changed_by', 'changed_at'] as before
from (values ('OPS_READ_NEW_MODEL_ENABLED')) as ours (flag)
left join phase2.flags as f on ours.flag = f.flag
where f.flag is null or f.enabled or f.rollout <> '{}';

insert into phase2.flags as f (flag, enabled, rollout, reason, changed_by)
select
    s.flag,
    false as enabled,
    '{}' as rollout,
    'rollback of batch G' as reason,
    current_user as changed_by
from pg_temp.switched_off as s
on conflict (flag) do update
    set
        enabled = excluded.enabled,
        rollout = excluded.rollout,
        reason = excluded.reason,
        changed_by = excluded.changed_by,
        changed_at = now();

drop schema if exists ops_read cascade;
drop table if exists dbt_recon.recon_g_reading;

drop index if exists
public.ix_booking_contact_name_of_booking,
public.ix_ops_assignment_driven,
public.ix_ops_booking_state_paid,
public.ix_ops_finance_bridge_sums,
public.ix_booking_core_places,
public.ix_unmapped_queue_source,
public.ix_payment_event_capture,
public.ix_payment_event_order,
public.ix_booking_item_snapshot_of_booking,
public.ix_booking_core_status_page,
public.ix_booking_core_channel_page,
public.ix_channel_external_refs_of_booking,
public.ix_channel_external_refs_by_ops_number,
public.ix_ops_assignment_of_driver,
public.ix_booking_core_reference_part,
public.ix_booking_contact_name_part;

-- the extension of 020 goes where it is ours and nobody else has built on it
do $$
begin
    if exists (
        select 1 from pg_catalog.pg_extension as e
        where e.extname = 'pg_trgm' and e.extowner = current_user::regrole
    ) then
        drop extension pg_trgm;
    end if;
exception
    when dependent_objects_still_exist then null;
end
$$;

select
    'phase2.flags' as table_name,
    count(l.entry_no) as rows
from pg_temp.switched_off as s
cross join
    lateral phase2.log(
        'flag', null, s.flag, null, current_user,
        jsonb_build_object(
            'before', s.before, 'after', jsonb_build_object('enabled', false), 'reason', 'rollback of batch G'
        )
    ) as l;

commit;
