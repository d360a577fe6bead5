-- What the report of the day compares (docs/daily.md). Idempotent, run at every start.

create table if not exists phase2.exception_days (
    batch text not null,
    gate_id text not null,
    entity text not null,
    key text not null,
    first_day date not null,
    last_day date not null,
    constraint exception_days_pkey primary key (gate_id, entity, key, batch)
);
comment on table phase2.exception_days is
'Exceptions behind a gate, with the first and the last day in Bali on which a report of the day saw them.';

create or replace function phase2.day_of_report_before(today date) returns date
language sql stable
as $$
    select max((l.body ->> 'day')::date) from phase2.ledger as l
    where l.kind = 'daily' and (l.body ->> 'day')::date < day_of_report_before.today
$$;
comment on function phase2.day_of_report_before(date) is
'The day of the last report before that day, whether or not it saw an exception; null when there is none.';

create or replace function phase2.keep_exception_days(today date) returns void
language sql
as $$
    insert into phase2.exception_days as d (batch, gate_id, entity, key, first_day, last_day)
    select distinct
        e.batch, e.gate_id, e.entity, e.key, keep_exception_days.today, keep_exception_days.today
    from phase2.exceptions as e
    join (
        select l.batch, max(l.evaluated_at) as evaluated_at from phase2.gate_results as l group by l.batch
    ) as latest on latest.batch = e.batch and latest.evaluated_at = e.evaluated_at
    on conflict (gate_id, entity, key, batch) do update
    set
        -- one that had gone and is back is new again
        first_day = case
            when d.last_day < (select phase2.day_of_report_before(keep_exception_days.today)) then excluded.first_day
            else d.first_day
        end,
        last_day = excluded.last_day
$$;
comment on function phase2.keep_exception_days(date) is
'Notes the exceptions of every batch''s latest evaluation for that day; a second time changes nothing.';

create or replace function phase2.exceptions_of_the_day(today date)
returns table (batch text, gate_id text, is_open bigint, is_new bigint, has_closed bigint)
language sql stable
as $$
    with before as (
        select phase2.day_of_report_before(exceptions_of_the_day.today) as day
    )

    select
        d.batch, d.gate_id,
        count(*) filter (where d.last_day = exceptions_of_the_day.today),
        count(*) filter (where d.first_day = exceptions_of_the_day.today),
        count(*) filter (where d.last_day = b.day)
    from phase2.exception_days as d
    cross join before as b
    where d.last_day = exceptions_of_the_day.today or d.last_day = b.day
    group by d.batch, d.gate_id
    order by d.batch, d.gate_id
$$;
comment on function phase2.exceptions_of_the_day(date) is
'Of each gate its exceptions of that day, those that are new since the report before, and those that have gone since.';

create or replace function phase2.money_at_stake(today date)
returns table (currency text, bookings bigint, amount numeric)
language sql stable
as $$
    with keyed as (
        select
            d.entity,
            case when d.key ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then d.key::uuid end as key
        from phase2.exception_days as d
        where d.last_day = money_at_stake.today and d.entity in ('booking', 'payment')
    )

    select c.currency_code::text, count(*), sum(c.total_price)
    from public.booking_core as c
    where
        c.booking_key in (
            select k.key from keyed as k where k.entity = 'booking'
            union
            select p.booking_key
            from keyed as k
            join public.payment_event as p on p.payment_key = k.key
            where k.entity = 'payment'
        )
    group by c.currency_code
    order by c.currency_code
$$;
comment on function phase2.money_at_stake(date) is
'The total price of the bookings that an exception of that day is about, each counted once, by currency.';
