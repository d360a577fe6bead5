-- The user of OPS_DB_URL. An administrator runs this once on ops_db before the first run, then gives the role a
-- password (`\password phase2_runner`). Idempotent. The runner is no superuser: it owns what it makes (phase2,
-- landing_*, dbt_*, rulebook, the tables in public) and nothing else.

begin;
set local lock_timeout = '5s';
set local search_path = '';

do $$
begin
    if not exists (select 1 from pg_catalog.pg_roles as r where r.rolname = 'phase2_runner') then
        create role phase2_runner;
    end if;
    -- create: its own schemas, and pgcrypto, which is a trusted extension; temporary: rollbacks count in a table
    execute format('grant connect, create, temporary on database %I to phase2_runner', current_database());
end
$$;

-- createdb: a copy is proven in a scratch database before anything is removed
-- Connections, in all databases of the server: 18 an API process (8 for ingestion, 4 reads, 2 shadow reads, 4 writes),
-- 4 a worker: two of each are 44. A run takes 9 (its lock, step, watcher, breath, two landings, three of dbt), a
-- rehearsal or a drill beside it 9, and 22 for the service of its own; emitters, hourly flows and people 8. That is 92:
-- the server's max_connections has to leave room for it beside others. For each further API process and worker 22 more.
alter role phase2_runner login inherit nosuperuser createdb nocreaterole noreplication nobypassrls
connection limit 92;

grant usage, create on schema public to phase2_runner;

-- gate A-00 asks whether any session has held a transaction open for long: others' sessions have to be seen
grant pg_read_all_stats to phase2_runner;

commit;
