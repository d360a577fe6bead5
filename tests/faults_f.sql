-- Faults of batch F, in the format of faults.sql, each planted behind a run of F that passed (tests/test_batch_f.py). Of
-- the log they take its first event, of five or so; `log`: events and dead letters, `drill`: what drills left behind.

-- @fault F-00 | run | the last run saw another secret
-- @plant
insert into phase2.gate_inputs (run_id, batch, gate_id, item, passed)
values ('00000000-0000-0000-0000-0000000000ff', 'F', 'F-00', 'token and secret', false);
-- @names
values ('token and secret');

-- @fault F-00 | run | no run has looked
-- @plant
delete from phase2.gate_inputs where gate_id = 'F-00';

-- @fault F-01 | log | an event of the last hour has failed
-- @rows
select event_key as key from public.ingest_event_log order by created_at limit 1;
-- @plant
update public.ingest_event_log set process_status = 'FAILED', next_retry_at = null
where event_key in (select key from planted);

-- @fault F-01 | log | there was no event ever
-- @plant
truncate public.ingest_event_log, public.ingest_dead_letter;

-- @fault F-02 | log | they take 4 s
-- @rows
select event_key as key from public.ingest_event_log;
-- @plant
update public.ingest_event_log set processed_at = request_received_at + interval '4 s';
update phase2.flags set changed_at = changed_at - interval '1 day';

-- @fault F-02-P95 | log | one of them takes 20 s
-- @rows
select event_key as key from public.ingest_event_log order by created_at limit 1;
-- @plant
update public.ingest_event_log set processed_at = request_received_at + interval '20 s'
where event_key in (select key from planted);
update phase2.flags set changed_at = changed_at - interval '1 day';

-- @fault F-02-P95 | log | one of them still waits after a minute
-- @rows
select event_key as key from public.ingest_event_log order by created_at limit 1;
-- @plant
update public.ingest_event_log
set process_status = 'RECEIVED', processed_at = null, request_received_at = request_received_at - interval '1 minute'
where event_key in (select key from planted);
update phase2.flags set changed_at = changed_at - interval '1 day';

-- @fault F-03 | log | 21 dead letters within an hour
-- @rows
select gen_random_uuid() as key from generate_series(1, 21);
-- @plant
insert into public.ingest_dead_letter (
    dead_letter_key, event_key, reason_code, status, first_failed_at, last_failed_at, raw_payload
)
select p.key, e.event_key, 'VALIDATION_ERROR', 'OPEN', e.request_received_at, e.request_received_at, '{}'
from (select * from public.ingest_event_log order by created_at limit 1) as e cross join planted as p;

-- @fault F-04 | log | the same event under another key
-- @rows
select gen_random_uuid() as key;
-- @plant
drop index public.ux_ingest_event_secondary_dedup;
insert into public.ingest_event_log
select r.*
from (select to_jsonb(e) as event from public.ingest_event_log as e order by e.created_at limit 1) as f
cross join planted as p
cross join lateral jsonb_populate_record(
    null::public.ingest_event_log,
    f.event || jsonb_build_object('event_key', p.key, 'idempotency_key', 'x', 'created_at', now())
) as r;

-- @fault F-04 | log | the same event under another key, its ref written otherwise
-- @rows
select gen_random_uuid() as key;
-- @plant
insert into public.ingest_event_log
select r.*
from (select to_jsonb(e) as event from public.ingest_event_log as e order by e.created_at limit 1) as f
cross join planted as p
cross join lateral jsonb_populate_record(
    null::public.ingest_event_log,
    f.event || jsonb_build_object(
        'event_key', p.key, 'idempotency_key', 'x', 'created_at', now(), 'external_booking_ref',
        lower(f.event ->> 'external_booking_ref')
    )
) as r;

-- @fault F-04 | log | another event under the same key
-- @rows
select gen_random_uuid() as key;
-- @plant
drop index public.ux_ingest_event_idempotency_key;
insert into public.ingest_event_log
select r.*
from (select to_jsonb(e) as event from public.ingest_event_log as e order by e.created_at limit 1) as f
cross join planted as p
cross join lateral jsonb_populate_record(
    null::public.ingest_event_log,
    f.event || jsonb_build_object(
        'event_key', p.key, 'created_at', now(), 'external_booking_ref', 'X', 'raw_payload', '{}'::jsonb
    )
) as r;

-- @fault F-05 | log | a nonce is two days old
-- @plant
update phase2.ingest_nonces set seen_at = seen_at - interval '2 days';
-- @names
values ('nonces');

-- @fault F-05 | log | an idempotency row is 37 days old
-- @plant
update public.ingest_event_log set created_at = created_at - interval '37 days';
-- @names
values ('idempotency rows');

-- @fault F-05 | log | an answer is 37 days old, its event is gone
-- @plant
update phase2.ingest_keys set answered_at = answered_at - interval '37 days', event_key = gen_random_uuid();
-- @names
values ('answers');

-- @fault F-05 | log | a dead letter was closed 32 days ago
-- @plant
insert into public.ingest_dead_letter (
    dead_letter_key, event_key, reason_code, status, first_failed_at, last_failed_at, raw_payload, updated_at
)
select gen_random_uuid(), e.event_key, 'X', 'CLOSED', now(), now(), '{}', now() - interval '32 days'
from public.ingest_event_log as e limit 1;
-- @names
values ('dead letters');

-- @fault F-05 | log | a queue row was closed 92 days ago
-- @plant
insert into public.unmapped_queue (
    queue_key, queue_type, source_system, source_table, source_pk, reason_code, status, payload, updated_at
)
values (
    gen_random_uuid(), 'BOOKING_REVIEW', 'x', 'x', 'x', 'INVALID_SOURCE', 'CLOSED', '{}', now() - interval '92 days'
);
-- @names
values ('unmapped queue');

-- @fault F-05 | run | the retention has not run for three days
-- @plant
update phase2.step_log set ended_at = ended_at - interval '3 days' where detail ->> 'script' like '091%';
-- @names
values ('the last run');

-- @fault F-05 | run | a finished job is older than its time
-- @plant
update phase2.gate_inputs set passed = false where gate_id = 'F-05' and item = 'completed jobs';
-- @names
values ('completed jobs');

-- @fault F-05 | run | nobody has looked at its schedule
-- @plant
delete from phase2.gate_inputs where gate_id = 'F-05' and item = 'daily';
-- @names
values ('daily');

-- @fault F-06 | drill | the latest burst has failed
-- @plant
insert into phase2.drills (drill_id, drill, passed, measured, started_at, ended_at)
values (gen_random_uuid(), 'burst', false, '{}', now(), now() + interval '1 s');
-- @names
values ('burst');

-- @fault F-06 | drill | nobody has tried a duplicate delivery
-- @plant
delete from phase2.drills where drill = 'duplicate';
-- @names
values ('duplicate');

-- @fault F-06 | drill | events came out of order 31 days ago, and never since
-- @plant
update phase2.drills set ended_at = ended_at - interval '31 days' where drill = 'out_of_order';
-- @names
values ('out_of_order');

-- @fault F-06 | drill | the replay left no audit rows
-- @plant
update phase2.drills set measured = '{"audit_rows": 0}' where drill = 'replay';
-- @names
values ('replay');

-- @fault F-06 | drill | there was none
-- @plant
delete from phase2.drills where drill <> 'rollback';
-- @names
values ('duplicate'), ('out_of_order'), ('burst'), ('replay');

-- @fault G-04 | drill | it took 301 s | F
-- @plant
update phase2.drills set measured = '{"seconds_to_old_path": 301}' where drill = 'rollback';
-- @names
values ('rollback');

-- @fault G-04 | drill | an event was lost | F
-- @plant
update phase2.drills set passed = false where drill = 'rollback';
-- @names
values ('rollback');

-- @fault G-04 | drill | the latest is 31 days old | F
-- @plant
update phase2.drills set ended_at = ended_at - interval '31 days' where drill = 'rollback';
-- @names
values ('rollback');

-- @fault G-04 | drill | there was none | F
-- @plant
delete from phase2.drills where drill = 'rollback';
-- @names
values ('rollback');

-- @fault G-03 | run | every tenth answer is a server error
-- @plant
insert into phase2.guardrail_log (guardrail, at, status, value, threshold, numerator, denominator, words)
values ('api-5xx', clock_timestamp(), 'BREACH', 0.1, 0.015, 100, 1000, 'reads: 100 of 1000');
-- @names
values ('api-5xx');

-- @fault G-03 | run | nobody has measured for a quarter of an hour
-- @plant
update phase2.guardrail_log set at = at - interval '15 minutes';
-- @names
values ('api-5xx');

-- @fault G-05 | run | balisnap does not answer
-- @plant
insert into phase2.guardrail_log (guardrail, at, status, threshold, words)
values ('public-booking-success', clock_timestamp(), 'NOT_MEASURED', 0.02, 'cannot connect');
-- @names
values ('public-booking-success');

-- @fault G-05 | run | fewer of the public bookings are paid
-- @plant
insert into phase2.guardrail_log (guardrail, at, status, value, threshold, numerator, denominator, words)
values ('public-booking-success', clock_timestamp(), 'BREACH', 0.2, 0.02, 60, 300, 'too few');
-- @names
values ('public-booking-success');

-- @fault G-06 | run | payments contradict bookings of the day
-- @plant
insert into phase2.guardrail_log (guardrail, at, status, value, threshold, numerator, denominator, words)
values ('payment-mismatch', clock_timestamp(), 'BREACH', 0.02, 0.005, 4, 200, 'too many');
-- @names
values ('payment-mismatch');
