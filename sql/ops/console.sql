-- Who has to wait at the console's sign-in, and which sessions are over (docs/console.md): every process of the core
-- API looks here. Idempotent, run at every start.

create table if not exists phase2.console_ended (
    session text not null,
    until timestamptz not null,
    constraint console_ended_pkey primary key (session)
);
create index if not exists ix_console_ended_until on phase2.console_ended (until);
comment on table phase2.console_ended is
'Sessions of the console that somebody has signed out of, until when their cookie would have held.';

create table if not exists phase2.console_tries (
    who text not null,
    try_id uuid not null,
    at timestamptz not null default clock_timestamp(),
    constraint console_tries_pkey primary key (who, try_id)
);
create index if not exists ix_console_tries_at on phase2.console_tries (at);
comment on table phase2.console_tries is
'Wrong passwords of the last minutes, and those being looked at: by host, and by host and name (keyed digests).';

create or replace function phase2.console_try(
    try_id uuid, host text, person text, most integer, most_of_host integer, within interval
) returns integer
language plpgsql
as $$
declare
    wait_until timestamptz;
begin
    -- one host's tries are one after the other, wherever they arrive
    perform pg_advisory_xact_lock(hashtextextended('phase2.console_try ' || console_try.host, 0));
    delete from phase2.console_tries as t where t.at < clock_timestamp() - console_try.within;
    select max(l.at) + console_try.within into wait_until
    from (values (console_try.person, console_try.most), (console_try.host, console_try.most_of_host)) as k (who, most)
    cross join lateral (
        select t.at from phase2.console_tries as t where t.who = k.who order by t.at desc offset k.most - 1 limit 1
    ) as l;
    if wait_until is not null then
        return greatest(1, ceil(extract(epoch from wait_until - clock_timestamp())));
    end if;
    insert into phase2.console_tries (who, try_id)
    values (console_try.person, console_try.try_id), (console_try.host, console_try.try_id);
    return 0;
end
$$;
comment on function phase2.console_try(uuid, text, text, integer, integer, interval) is
'Takes one try of a password: 0; or counts none and says how many seconds to wait. A right one is taken back after it.';

create or replace function phase2.forget_console(most_rows integer) returns bigint
language sql
as $$
with old as (
    select e.session from phase2.console_ended as e where e.until < now() limit most_rows for update skip locked
),

ended as (
    delete from phase2.console_ended as e using old where e.session = old.session
    returning 1
),

tries as (
    delete from phase2.console_tries as t where t.at < now() - interval '1 day'
    returning 1
)

select (select count(*) from ended) + (select count(*) from tries)
$$;
comment on function phase2.forget_console(integer) is
'Removes at most so many sessions whose cookie holds no more, and tries of a day ago; how many.';
