-- The user of BSTADMIN_DB_URL. Its administrator runs this once on bstadmin, then gives the role a password
-- (`\password phase2_reader`). Idempotent. No table is changed; what is granted is all that a run reads.

begin;
set local lock_timeout = '5s';
set local search_path = '';

do $$
begin
    if not exists (select 1 from pg_catalog.pg_roles as r where r.rolname = 'phase2_reader') then
        create role phase2_reader;
    end if;
    execute format('grant connect on database %I to phase2_reader', current_database());
end
$$;

-- a rehearsal takes three a source: the landing, and two that watch locks; each process of the core API six, for the
-- reads of the back office and their shadow
alter role phase2_reader login noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls
connection limit 30;

-- A session could switch these off; it still has no right to write.
alter role phase2_reader set default_transaction_read_only = on;
alter role phase2_reader set statement_timeout = '30min';
alter role phase2_reader set lock_timeout = '10s';
alter role phase2_reader set idle_in_transaction_session_timeout = '10min';

grant usage on schema public to phase2_reader;

-- landed
grant select on
public.tours,
public.tour_packages,
public.tour_images,
public.tour_itineraries,
public.bookings,
public.booking_finances,
public.booking_finance_items
to phase2_reader;

-- asked by gate A-03 alone: no more than the pages' statements name
grant select (id, name, vehicle_type, vehicle_plate, rating, assignment_count, status, priority_level)
on public.drivers to phase2_reader;
grant select (partner_id, name) on public.partners to phase2_reader;
grant select (pattern_id, name) on public.tour_cost_patterns to phase2_reader;
grant select (activity_id, activity_name, duration_hours) on public.activities to phase2_reader;
grant select (booking_id, email_id, relation_type) on public.booking_emails to phase2_reader;
grant select (id, subject, received_at, source, error_message, is_booking_email)
on public.email_inbox to phase2_reader;
-- the mail emitter: what the parser made of a mail, not the mail
grant select (message_id, parsed_data, created_at) on public.email_inbox to phase2_reader;
grant select (created_at, action, entity, entity_id) on public.audit_logs to phase2_reader;

-- What this script cannot take away is what everybody has: a database that was upgraded from 14 or earlier lets anyone
-- create tables in schema public.
do $$
begin
    if
        has_schema_privilege('phase2_reader', 'public', 'create')
        or exists (
            select 1 from pg_catalog.pg_class as c
            inner join pg_catalog.pg_namespace as n on c.relnamespace = n.oid
            where
                n.nspname = 'public' and c.relkind in ('r', 'p')
                and has_table_privilege('phase2_reader', c.oid, 'insert, update, delete, truncate')
        )
    then
        raise exception 'phase2_reader could write: revoke create on schema public from public, and what was granted';
    end if;
end
$$;

commit;
