-- The ledger: what happened, in the order in which it happened, each entry chained to the one before it by its digest.
-- What was decided (waivers, sign-offs, certificates, stops) is read from here and stands nowhere else.

create table if not exists phase2.ledger (
    entry_no bigint not null,
    entry text not null,
    digest text not null,
    kind text generated always as ((entry::jsonb) ->> 'kind') stored,
    batch text generated always as ((entry::jsonb) ->> 'batch') stored,
    subject text generated always as ((entry::jsonb) ->> 'subject') stored,
    run_id uuid generated always as (((entry::jsonb) ->> 'run_id')::uuid) stored,
    actor text generated always as ((entry::jsonb) ->> 'actor') stored,
    body jsonb generated always as ((entry::jsonb) -> 'body') stored,
    constraint ledger_pkey primary key (entry_no),
    constraint ledger_digest_key unique (digest)
);
create index if not exists ix_ledger_kind on phase2.ledger (kind, batch, entry_no desc);
create index if not exists ix_ledger_run on phase2.ledger (run_id, entry_no);
comment on table phase2.ledger is
'Append only. One row a step, gate, verdict, waiver, sign-off, rollback, rehearsal, backup, stop, by phase2.log.';
comment on column phase2.ledger.entry is
'The entry as JSON text: no, at (UTC), kind, batch, subject, run_id, actor, body, previous. All other columns follow.';
comment on column phase2.ledger.digest is
'SHA-256 of the bytes of entry, in hex. The next entry holds it as "previous": one changed byte breaks the chain.';

create or replace function phase2.log(
    kind text, batch text, subject text, run_id uuid, actor text, body jsonb
) returns phase2.ledger
language plpgsql
as $$
declare
    before record;
    written phase2.ledger;
begin
    -- one writer at a time, until its transaction ends: the chain has no fork
    perform pg_advisory_xact_lock(hashtextextended('phase2.ledger', 0));
    select l.entry_no, l.digest into before from phase2.ledger as l order by l.entry_no desc limit 1;
    insert into phase2.ledger (entry_no, entry, digest)
    select e.no, e.entry, encode(sha256(convert_to(e.entry, 'UTF8')), 'hex')
    from (
        select
            coalesce(before.entry_no, 0) + 1 as no,
            jsonb_build_object(
                'no', coalesce(before.entry_no, 0) + 1,
                'at', to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                'kind', log.kind, 'batch', log.batch, 'subject', log.subject, 'run_id', log.run_id,
                'actor', log.actor, 'body', log.body, 'previous', before.digest
            )::text as entry
    ) as e
    returning * into written;
    return written;
end
$$;
comment on function phase2.log(text, text, text, uuid, text, jsonb) is
'Writes one entry at the end of the chain, inside the caller''s transaction.';

create or replace function phase2.refuse_to_rewrite() returns trigger
language plpgsql
as $$
begin
    raise exception 'phase2.ledger is append only' using hint = 'Correct an entry by a new one.';
end
$$;
create or replace trigger ledger_is_append_only
before update or delete or truncate on phase2.ledger
for each statement execute function phase2.refuse_to_rewrite();
