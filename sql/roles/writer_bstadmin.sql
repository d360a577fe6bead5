-- The user of BSTADMIN_WRITE_DB_URL: writes of the back office through the core API (batch H). bstadmin's
-- administrator runs this once there, then gives the role a password (`\password phase2_writer`). Idempotent. No table
-- is changed. What is granted is all that such a write touches: no delete, no other column; a total only where a person
-- settles a conflict.

begin;
set local lock_timeout = '5s';
set local search_path = '';

do $$
begin
    if not exists (select 1 from pg_catalog.pg_roles as r where r.rolname = 'phase2_writer') then
        create role phase2_writer;
    end if;
    execute format('grant connect on database %I to phase2_writer', current_database());
end
$$;

-- four connections an API process, two a worker
alter role phase2_writer login noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls
connection limit 20;
alter role phase2_writer set statement_timeout = '10s';
alter role phase2_writer set lock_timeout = '5s';
alter role phase2_writer set idle_in_transaction_session_timeout = '30s';

grant usage on schema public to phase2_writer;

grant select (
    booking_id, updated_at, note, meeting_point, package_id, assigned_driver_id, assigned_at, status, tour_date,
    total_price, currency, source, is_paid, paid_at
) on public.bookings to phase2_writer;
grant update (
    updated_at, note, meeting_point, package_id, assigned_driver_id, assigned_at, status, tour_date, total_price,
    currency
) on public.bookings to phase2_writer;
grant select (id) on public.drivers to phase2_writer;

-- each write leaves its row there, under its own id: it is never written twice
grant select (id, action) on public.audit_logs to phase2_writer;
grant insert (id, action, entity, entity_id, old_value, new_value, user_agent) on public.audit_logs to phase2_writer;

-- What this script cannot take away is what everybody has.
do $$
begin
    if
        has_schema_privilege('phase2_writer', 'public', 'create')
        or exists (
            select 1 from pg_catalog.pg_class as c
            inner join pg_catalog.pg_namespace as n on c.relnamespace = n.oid
            where
                n.nspname = 'public' and c.relkind in ('r', 'p')
                and (
                    has_table_privilege('phase2_writer', c.oid, 'delete, truncate')
                    or (
                        c.relname not in ('bookings', 'audit_logs')
                        and has_any_column_privilege('phase2_writer', c.oid, 'insert, update')
                    )
                )
        )
    then
        raise exception 'phase2_writer could do more: revoke create on schema public from public, and what was granted';
    end if;
end
$$;

commit;
