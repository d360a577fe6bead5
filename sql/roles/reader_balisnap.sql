-- The user of BALISNAP_DB_URL. Its administrator runs this once on balisnap, then gives the role a password
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

-- a rehearsal takes three a source: the landing, and two that watch locks
alter role phase2_reader login noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls
connection limit 8;

-- A session could switch these off; it still has no right to write.
alter role phase2_reader set default_transaction_read_only = on;
alter role phase2_reader set statement_timeout = '30min';
alter role phase2_reader set lock_timeout = '10s';
alter role phase2_reader set idle_in_transaction_session_timeout = '10min';

grant usage on schema public to phase2_reader;

-- landed
grant select on
public."TourProduct",
public."TourVariant",
public."VariantRatePlan",
public."VariantItinerary",
public."TourPackage",
public."TourImage",
public."Departure",
public."Booking",
public."BookingItem",
public."BookingTraveler",
public."Payment"
to phase2_reader;

-- asked by gate A-03 alone: no more than the pages' statements name
grant select (id) on public."User" to phase2_reader;

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
