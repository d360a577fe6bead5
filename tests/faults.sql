-- Faults, each planted in a copy of a healthy shop that went through A to E (tests/test_faults.py runs them all).
--
-- `-- @fault gate | where | title` opens one; of a global gate `| batch` says after which batch it is asked.
-- `-- @rows`    the rows that it is about, as `planted`; their `key` is what the gate's exceptions have to list
-- `-- @plant`   the damage
-- `-- @names`   the keys, where they are not `planted.key`
--
-- New rows get keys from ffffffff-… on: the last of all, so that of two duplicates they are the second.
-- Faults of the sources are scenarios (sql/sample/scenarios.sql).

-- A: schema foundation ------------------------------------------------------------------------------------------

-- @fault A-00 | run | the disk is nearly full
-- @plant
insert into phase2.gate_inputs (run_id, batch, gate_id, item, passed)
select '00000000-0000-0000-0000-0000000000ff', 'A', 'A-00', v.item, v.passed
from (values ('free_disk', false), ('time_zone', true)) as v (item, passed);
-- @names
values ('free_disk');

-- @fault A-00 | run | nothing was checked
-- @plant
delete from phase2.gate_inputs where gate_id = 'A-00';

-- @fault A-01 | schema | a table is gone
-- @plant
drop table public.migration_run_log cascade;
-- @names
values ('migration_run_log');

-- @fault A-01 | schema | a column has another type
-- @plant
alter table public.booking_contact drop column updated_from_source cascade;
alter table public.booking_contact add column updated_from_source text;
-- @names
values ('booking_contact');

-- @fault A-01 | schema | a column is missing
-- @plant
alter table public.ops_assignment drop column notes cascade;
-- @names
values ('ops_assignment');

-- @fault A-01 | schema | a column too many
-- @plant
alter table public.unmapped_queue add extra text;
-- @names
values ('unmapped_queue');

-- @fault A-01 | schema | a column may be null that may not
-- @plant
alter table public.booking_core alter tour_date drop not null;
-- @names
values ('booking_core');

-- @fault A-01 | schema | a table would not survive a crash
-- @plant
alter table public.booking_party set unlogged;
-- @names
values ('booking_party');

-- @fault A-02 | schema | an index is missing
-- @plant
drop index public.ix_booking_core_tour_date;
-- @names
values ('booking_core.ix_booking_core_tour_date');

-- @fault A-02 | schema | a foreign key is missing
-- @plant
alter table public.payment_event drop constraint payment_event_booking_key_fkey;
-- @names
values ('payment_event.payment_event_booking_key_fkey');

-- @fault A-02 | schema | a foreign key that was never validated
-- @plant
alter table public.payment_event drop constraint payment_event_booking_key_fkey;
alter table public.payment_event add constraint payment_event_booking_key_fkey
foreign key (booking_key) references public.booking_core (booking_key) not valid;
-- @names
values ('payment_event.payment_event_booking_key_fkey');

-- @fault A-02 | schema | a check is missing
-- @plant
alter table public.unmapped_queue drop constraint ck_unmapped_queue_status;
-- @names
values ('unmapped_queue.ck_unmapped_queue_status');

-- @fault A-02 | schema | a primary key is missing
-- @plant
alter table public.booking_party drop constraint booking_party_pkey cascade;
-- @names
values ('booking_party.booking_party_pkey');

-- @fault A-02 | schema | a unique index that is not unique
-- @plant
drop index public.ux_payment_event_payment_ref_not_null;
create index ux_payment_event_payment_ref_not_null on public.payment_event (payment_ref)
where payment_ref is not null;
-- @names
values ('payment_event.ux_payment_event_payment_ref_not_null');

-- @fault A-02 | schema | a trigger changes what is written
-- @plant
create function public.meddle() returns trigger language plpgsql as 'begin return new; end';
create trigger meddles before insert on public.booking_core for each row execute function public.meddle();
-- @names
values ('booking_core.meddles');

-- @fault A-03 | run | a legacy query fails after the batch
-- @rows
select max(legacy_query_result_id) as id, (array_agg(query_name order by legacy_query_result_id desc))[1] as key
from phase2.legacy_query_results where phase = 'AFTER';
-- @plant
update phase2.legacy_query_results set succeeded = false where legacy_query_result_id in (select id from planted);

-- @fault A-03 | run | one source's queries were not asked
-- @plant
delete from phase2.legacy_query_results where source = 'bstadmin';
-- @names
values ('(all)');

-- @fault A-03 | run | no legacy query ran after the batch
-- @rows
select query_name as key from phase2.legacy_query_results where phase = 'AFTER';
-- @plant
delete from phase2.legacy_query_results where phase = 'AFTER';

-- B: reference seed ---------------------------------------------------------------------------------------------

-- @fault B-01 | seed | a channel is missing
-- @plant
delete from public.channel_registry where channel_code = 'BOKUN';
-- @names
values ('BOKUN');

-- @fault B-01 | seed | a channel's code was changed
-- @plant
update public.channel_registry set channel_code = 'TRIP.COM' where channel_code = 'TRIPDOTCOM';
-- @names
values ('TRIPDOTCOM');

-- @fault B-02 | seed | a code is missing
-- @plant
delete from public.ref_dead_letter_status where status_code = 'CLOSED';
-- @names
values ('CLOSED');

-- @fault B-02 | seed | a code was changed
-- @plant
update public.ref_mapping_status set status_code = 'REVIEW' where status_code = 'REVIEW_REQUIRED';
-- @names
values ('REVIEW_REQUIRED');

-- @fault B-02 | schema | a dictionary is gone
-- @plant
drop table public.ref_replay_status cascade;
-- @names
values ('READY'), ('REPLAYING'), ('SUCCEEDED'), ('FAILED');

-- @fault B-03 | run | the seeds' rerun added rows
-- @plant
insert into phase2.gate_inputs (run_id, batch, gate_id, item, passed)
values (gen_random_uuid(), 'B', 'B-03', 'seed scripts', false);
-- @names
values ('seed scripts');

-- @fault B-03 | run | the seeds were not run again
-- @plant
delete from phase2.gate_inputs where gate_id = 'B-03';

-- C: catalog bridge ---------------------------------------------------------------------------------------------

-- @fault C-01 | bridge | orphans: products without a variant
-- @rows
select gen_random_uuid() as key, n from generate_series(1, 20) as n;
-- @plant
insert into public.catalog_product (product_key, slug, name) select key, 'orphan-' || n, 'Orphan' from planted;

-- @fault C-01 | bridge | orphans: variants without their product
-- @rows
select variant_key as key from public.catalog_variant order by variant_key limit 20;
-- @plant
update public.catalog_variant set product_key = gen_random_uuid() where variant_key in (select key from planted);

-- @fault C-01 | bridge | refs that lead to nothing
-- @rows
select external_ref_key as key from public.channel_external_refs where entity_type = 'VARIANT';
-- @plant
update public.channel_external_refs set entity_key = gen_random_uuid()
where external_ref_key in (select key from planted);

-- @fault C-01 | bridge | refs that lead to nothing, and no catalog
-- @rows
select external_ref_key as key from public.channel_external_refs where entity_type <> 'BOOKING';
-- @plant
truncate public.catalog_variant_rate;
delete from public.catalog_variant;
delete from public.catalog_product;

-- @fault C-02 | bridge | the queue is long
-- @rows
select 'bstadmin:tour_packages:x' || n || ':NO_MATCH' as key, 'x' || n as source_pk from generate_series(1, 200) as n;
-- @plant
insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk, reason_code)
select gen_random_uuid(), 'PRODUCT_MAPPING', 'bstadmin', 'tour_packages', source_pk, 'NO_MATCH' from planted;

-- @fault C-02 | bridge | there is no catalog
-- @plant
truncate public.catalog_variant_rate, public.catalog_variant, public.catalog_product cascade;

-- @fault C-03 | bridge | a rate is removed
-- @rows
select r.variant_key as key
from public.catalog_variant_rate as r
inner join public.channel_external_refs as e on r.variant_key = e.entity_key
order by r.variant_key limit 1;
-- @plant
delete from public.catalog_variant_rate where variant_key in (select key from planted);

-- @fault C-03 | bridge | a variant's rates are switched off
-- @rows
select r.variant_key as key
from public.catalog_variant_rate as r
inner join public.channel_external_refs as e on r.variant_key = e.entity_key
order by r.variant_key limit 1;
-- @plant
update public.catalog_variant_rate set is_active = false where variant_key in (select key from planted);

-- @fault C-04 | bridge | a queue row with another reason
-- @rows
select queue_key as key from public.unmapped_queue order by queue_key limit 1;
-- @plant
update public.unmapped_queue set reason_code = 'OTHER' where queue_key in (select key from planted);

-- @fault C-04 | bridge | a queue row without a reason
-- @rows
select queue_key as key from public.unmapped_queue order by queue_key limit 1;
-- @plant
alter table public.unmapped_queue alter reason_code drop not null;
update public.unmapped_queue set reason_code = null where queue_key in (select key from planted);

-- D: booking bridge ---------------------------------------------------------------------------------------------

-- @fault D-01 | bridge | a ref once more, with a zero-width space
-- @rows
select 'ffffffff-ffff-4fff-bfff-ffffffffffff:' || channel_code || ':' || external_booking_ref as key, booking_key
from public.booking_core order by booking_key limit 1;
-- @plant
insert into public.booking_core (
    booking_key, channel_code, external_booking_ref, booking_created_at, tour_date, customer_payment_status,
    ops_fulfillment_status, package_ref_type
)
select
    'ffffffff-ffff-4fff-bfff-ffffffffffff', c.channel_code, left(c.external_booking_ref, 1) || U&'\200B'
    || substr(c.external_booking_ref, 2), now(), c.tour_date, 'PAID', 'NEW', 'LEGACY_PACKAGE'
from public.booking_core as c inner join planted using (booking_key);

-- @fault D-01 | bridge | a ref once more, in small letters
-- @rows
select 'ffffffff-ffff-4fff-bfff-ffffffffffff:' || channel_code || ':' || external_booking_ref as key, booking_key
from public.booking_core where external_booking_ref ~ '[A-Z]' order by booking_key limit 1;
-- @plant
insert into public.booking_core (
    booking_key, channel_code, external_booking_ref, booking_created_at, tour_date, customer_payment_status,
    ops_fulfillment_status, package_ref_type
)
select
    'ffffffff-ffff-4fff-bfff-ffffffffffff', c.channel_code, ' ' || lower(c.external_booking_ref), now(), c.tour_date,
    'PAID', 'NEW', 'LEGACY_PACKAGE'
from public.booking_core as c inner join planted using (booking_key);

-- @fault D-01 | bridge | a source's id leads to another booking
-- @rows
select
    r.external_ref_key, m.booking_key,
    m.booking_key || ':' || c.channel_code || ':' || c.external_booking_ref as key
from public.channel_external_refs as r
inner join public.booking_core as c on r.entity_key = c.booking_key
inner join (select max(booking_key::text)::uuid as booking_key from public.booking_core) as m
    on c.booking_key <> m.booking_key
where r.external_ref_kind = 'BSTADMIN_BOOKING_ID' order by r.external_ref_key limit 1;
-- @plant
update public.channel_external_refs as r set entity_key = p.booking_key
from planted as p where r.external_ref_key = p.external_ref_key;

-- @fault D-02 | bridge | a null channel
-- @rows
select booking_key as key from public.booking_core order by booking_key limit 1;
-- @plant
alter table public.booking_core alter channel_code drop not null;
update public.booking_core set channel_code = null where booking_key in (select key from planted);

-- @fault D-02 | bridge | a null ref
-- @rows
select booking_key as key from public.booking_core order by booking_key limit 1;
-- @plant
alter table public.booking_core alter external_booking_ref drop not null;
update public.booking_core set external_booking_ref = null where booking_key in (select key from planted);

-- @fault D-02 | bridge | an empty ref
-- @rows
select booking_key as key from public.booking_core order by booking_key limit 1;
-- @plant
update public.booking_core set external_booking_ref = '' where booking_key in (select key from planted);

-- @fault D-02 | bridge | a ref of a zero-width space alone
-- @rows
select booking_key as key from public.booking_core order by booking_key limit 1;
-- @plant
update public.booking_core set external_booking_ref = U&' \200B' where booking_key in (select key from planted);

-- @fault D-02 | bridge | a channel that nobody has registered
-- @rows
select booking_key as key from public.booking_core order by booking_key limit 1;
-- @plant
update public.booking_core set channel_code = 'KLOOK' where booking_key in (select key from planted);

-- @fault D-03 | bridge | one adult more than the items have
-- @rows
select booking_key as key from public.booking_core order by booking_key limit 100;
-- @plant
update public.booking_core set number_of_adult = number_of_adult + 1 where booking_key in (select key from planted);

-- @fault D-03 | bridge | bookings without their items
-- @rows
select booking_key as key from public.booking_core where number_of_adult > 0 order by booking_key limit 100;
-- @plant
delete from public.booking_item_snapshot where booking_key in (select key from planted);

-- @fault D-04 | bridge | a null package type
-- @rows
select booking_key as key from public.booking_core order by booking_key limit 1;
-- @plant
alter table public.booking_core alter package_ref_type drop not null;
update public.booking_core set package_ref_type = null where booking_key in (select key from planted);

-- @fault D-04 | bridge | a package type that no dictionary has
-- @rows
select booking_key as key from public.booking_core order by booking_key limit 1;
-- @plant
alter table public.booking_core drop constraint ck_booking_core_package_ref_type;
update public.booking_core set package_ref_type = 'VOUCHER' where booking_key in (select key from planted);

-- @fault D-04 | bridge | a catalog type without a key
-- @rows
select booking_key as key from public.booking_core
where package_ref_type = 'CATALOG_VARIANT' order by booking_key limit 1;
-- @plant
update public.booking_core set package_ref_key = null where booking_key in (select key from planted);

-- @fault D-05 | bridge | a booking is dropped
-- @rows
select booking_key from public.booking_core order by booking_key limit 1;
-- @plant
delete from public.booking_core where booking_key in (select booking_key from planted);
-- @names
select concat_ws(':', r.source_system, r.source_table, r.source_pk)
from public.channel_external_refs as r inner join planted as p on r.entity_key = p.booking_key
where r.external_ref_kind in ('BALISNAP_BOOKING_ID', 'BSTADMIN_BOOKING_ID');

-- @fault D-06 | bridge | a booking from nowhere
-- @rows
select 'ffffffff-ffff-4fff-bfff-ffffffffffff'::uuid as key;
-- @plant
insert into public.booking_core (
    booking_key, channel_code, external_booking_ref, booking_created_at, tour_date, customer_payment_status,
    ops_fulfillment_status, package_ref_type
)
select key, 'GYG', 'FROM-NOWHERE', now(), '2026-01-01', 'PAID', 'NEW', 'LEGACY_PACKAGE' from planted;

-- @fault D-06 | landing | a booking is lost between the source and the bridge's view of it
-- @rows
select c.booking_key as key, l.booking_id
from landing_bstadmin.bookings as l
inner join public.channel_external_refs as r
    on l.booking_id::text = r.external_ref and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'
inner join public.booking_core as c on r.entity_key = c.booking_key
where (select count(*) from public.channel_external_refs as o
where o.entity_key = c.booking_key and o.external_ref_kind like '%BOOKING_ID') = 1
order by l.booking_id limit 1;
-- @plant
delete from landing_bstadmin.bookings where booking_id in (select booking_id from planted);

-- E: payment and finance bridge ---------------------------------------------------------------------------------

-- @fault E-01 | bridge | orphan: a payment without booking
-- @rows
select payment_key as key from public.payment_event order by payment_key limit 1;
-- @plant
update public.payment_event set booking_key = gen_random_uuid() where payment_key in (select key from planted);

-- @fault E-01 | bridge | a payment on another booking
-- @rows
select payment_key as key from public.payment_event order by payment_key limit 1;
-- @plant
update public.payment_event set booking_key = (
    select booking_key from public.booking_core where channel_code = 'GYG' order by booking_key limit 1
) where payment_key in (select key from planted);

-- @fault E-02 | bridge | payment status flipped: done and not paid
-- @rows
select booking_key as key from public.booking_core where ops_fulfillment_status = 'DONE'
and customer_payment_status = 'PAID' order by booking_key limit 40;
-- @plant
update public.booking_core set customer_payment_status = 'PENDING_PAYMENT'
where booking_key in (select key from planted);

-- @fault E-03 | bridge | another amount than the capture
-- @rows
select 'payload:' || payment_key || ':' || gateway_capture_id as key, payment_key from public.payment_event
where raw_payload ? 'purchase_units' and gateway_capture_id is not null order by payment_key limit 1;
-- @plant
update public.payment_event set amount = amount + 5 where payment_key in (select payment_key from planted);

-- @fault E-03 | bridge | two swapped amounts
-- @rows
select 'payload:' || payment_key || ':' || gateway_capture_id as key, payment_key, amount
from (
    select distinct on (amount) * from public.payment_event
    where raw_payload ? 'purchase_units' and gateway_capture_id is not null and currency_code = 'USD'
    order by amount, payment_key
) as e order by amount limit 2;
-- @plant
update public.payment_event as e set amount = o.amount
from planted as p inner join planted as o on p.payment_key <> o.payment_key where e.payment_key = p.payment_key;

-- @fault E-03 | bridge | a null capture id
-- @rows
select 'payload:' || payment_key || ':' || gateway_capture_id as key, payment_key from public.payment_event
where raw_payload ? 'purchase_units' and gateway_capture_id is not null order by payment_key limit 1;
-- @plant
update public.payment_event set gateway_capture_id = null where payment_key in (select payment_key from planted);

-- @fault E-03 | run | a capture of the export that the bridge does not know
-- @plant
insert into phase2.audit_sample (capture_id, amount, currency) values ('UNKNOWN', 10, 'USD');
-- @names
select 'export:' || line_no || ':UNKNOWN' from phase2.audit_sample;

-- @fault E-04 | bridge | a booking that was paid is not any more
-- @rows
select booking_key as key from public.booking_core where customer_payment_status = 'PAID' and channel_code = 'GYG'
order by booking_key limit 1;
-- @plant
update public.booking_core set customer_payment_status = 'PENDING_PAYMENT'
where booking_key in (select key from planted);

-- @fault E-04 | bridge | a booking that was paid fell beside an attempt that was cancelled
-- @rows
select c.booking_key as key, l.payment_id
from landing_balisnap."Payment" as l
inner join public.payment_event as e
    on e.payment_key = rulebook.row_key('payment', 'balisnap', 'Payment', l.payment_id::text)
inner join public.booking_core as c on e.booking_key = c.booking_key
where c.channel_code = 'DIRECT' and c.customer_payment_status = 'PAID' and e.payment_status_v2 = 'PAID'
order by c.booking_key limit 1;
-- @plant
insert into landing_balisnap."Payment"
select (jsonb_populate_record(l, jsonb_build_object(
    'payment_id', 900001, 'payment_status_v2', 'CANCELLED', 'gateway_capture_id', 'TRIED'
))).*
from landing_balisnap."Payment" as l inner join planted using (payment_id);
update public.booking_core set customer_payment_status = 'PENDING_PAYMENT'
where booking_key in (select key from planted);

-- G: the global gates -------------------------------------------------------------------------------------------

-- @fault G-01 | bridge | a booking twice | D
-- @rows
select 'ffffffff-ffff-4fff-bfff-ffffffffffff'::uuid as key, booking_key
from public.booking_core order by booking_key limit 1;
-- @plant
insert into public.booking_core (
    booking_key, channel_code, external_booking_ref, booking_created_at, tour_date, customer_payment_status,
    ops_fulfillment_status, package_ref_type
)
select
    p.key, c.channel_code, ' ' || c.external_booking_ref, now(), c.tour_date, 'PAID', 'NEW', 'LEGACY_PACKAGE'
from public.booking_core as c inner join planted as p using (booking_key);

-- @fault G-01 | bridge | a booking twice, and the unique index gone | A
-- @rows
select 'ffffffff-ffff-4fff-bfff-ffffffffffff'::uuid as key, booking_key
from public.booking_core order by booking_key limit 1;
-- @plant
drop index public.ux_booking_core_channel_external_ref;
insert into public.booking_core (
    booking_key, channel_code, external_booking_ref, booking_created_at, tour_date, customer_payment_status,
    ops_fulfillment_status, package_ref_type
)
select p.key, c.channel_code, c.external_booking_ref, now(), c.tour_date, 'PAID', 'NEW', 'LEGACY_PACKAGE'
from public.booking_core as c inner join planted as p using (booking_key);

-- @fault G-01 | bridge | two bookings of one source row | D
-- @rows
select r.*, m.booking_key as key
from public.channel_external_refs as r
inner join (select max(booking_key::text)::uuid as booking_key from public.booking_core) as m
    on r.entity_key <> m.booking_key
where r.external_ref_kind = 'BALISNAP_BOOKING_ID' order by r.external_ref_key limit 1;
-- @plant
insert into public.channel_external_refs
select (jsonb_populate_record(r, jsonb_build_object(
    'external_ref_key', gen_random_uuid(), 'external_ref', r.external_ref || '-2', 'entity_key', p.key
))).*
from public.channel_external_refs as r inner join planted as p using (external_ref_key);

-- @fault G-02 | bridge | paid flags flipped | D
-- @rows
select booking_key as key from public.booking_core order by booking_key limit 100;
-- @plant
update public.ops_booking_state set is_paid_flag = not is_paid_flag where booking_key in (select key from planted);

-- @fault G-02 | bridge | paid flags flipped, asked of the bridge as it stands | B
-- @rows
select booking_key as key from public.booking_core order by booking_key limit 100;
-- @plant
update public.ops_booking_state set is_paid_flag = not is_paid_flag where booking_key in (select key from planted);

-- @fault G-02 | bridge | fulfilment statuses flipped | D
-- @rows
select booking_key as key from public.booking_core where ops_fulfillment_status = 'COMPLETED'
order by booking_key limit 50;
-- @plant
update public.booking_core set ops_fulfillment_status = 'DONE' where booking_key in (select key from planted);
update public.ops_booking_state set ops_fulfillment_status = 'DONE' where booking_key in (select key from planted);

-- @fault G-02 | landing | settled finances turned unpaid | D
-- @rows
select booking_key as key from public.booking_core where ops_fulfillment_status = 'DONE';
-- @plant
update landing_bstadmin.booking_finance_items set paid = false;

-- @fault G-02 | bridge | contacts of two halves of the bookings are swapped | D
-- @rows
select n.booking_key as key, o.main_name, o.main_email, o.phone
from (
    select *, row_number() over (order by booking_key) as n from public.booking_contact
    where not is_placeholder_name and not is_placeholder_email and phone is not null
) as n
inner join (
    select *, row_number() over (order by booking_key desc) as n from public.booking_contact
    where not is_placeholder_name and not is_placeholder_email and phone is not null
) as o
    on n.n = o.n
    and n.main_name <> o.main_name and n.main_email <> o.main_email and right(n.phone, 8) <> right(o.phone, 8)
where n.n <= 40;
-- @plant
update public.booking_contact as c set main_name = p.main_name, main_email = p.main_email, phone = p.phone
from planted as p where c.booking_key = p.key;

-- @fault G-02 | bridge | a null: the e-mail of some bookings | D
-- @rows
select booking_key as key from public.booking_contact where not is_placeholder_email order by booking_key limit 40;
-- @plant
update public.booking_contact set main_email = null where booking_key in (select key from planted);

-- @fault G-02 | bridge | another driver than operations assigned | D
-- @rows
select booking_key as key from public.ops_booking_state where assigned_driver_id is not null
order by booking_key limit 40;
-- @plant
update public.ops_booking_state set assigned_driver_id = assigned_driver_id + 1000
where booking_key in (select key from planted);
update public.ops_assignment set driver_id = driver_id + 1000
where booking_key in (select key from planted) and is_active;

-- @fault G-02 | bridge | assignments are dropped | D
-- @rows
select booking_key as key from public.ops_assignment where is_active order by booking_key limit 40;
-- @plant
delete from public.ops_assignment where booking_key in (select key from planted);

-- @fault G-02 | bridge | a party of more children than the items have | D
-- @rows
select booking_key as key from public.booking_party order by booking_key limit 40;
-- @plant
update public.booking_party set child_qty = child_qty + 1 where booking_key in (select key from planted);

-- @fault G-02 | bridge | products renamed | C
-- @rows
select entity_key as key from public.channel_external_refs where external_ref_kind = 'BALISNAP_PRODUCT_ID'
order by entity_key limit 20;
-- @plant
update public.catalog_product set name = name || ' (old)' where product_key in (select key from planted);

-- @fault G-02 | bridge | variants switched off | C
-- @rows
select entity_key as key from public.channel_external_refs where external_ref_kind = 'BALISNAP_VARIANT_ID'
order by entity_key limit 20;
-- @plant
update public.catalog_variant set is_active = not is_active where variant_key in (select key from planted);

-- @fault G-02 | bridge | payment statuses flipped | E
-- @rows
select payment_key as key from public.payment_event where payment_status_v2 = 'PAID' order by payment_key limit 40;
-- @plant
update public.payment_event set payment_status_v2 = 'PENDING_PAYMENT' where payment_key in (select key from planted);

-- @fault G-02 | bridge | payments a day later | E
-- @rows
select payment_key as key from public.payment_event order by payment_key limit 40;
-- @plant
update public.payment_event set payment_time = payment_time + interval '1 day'
where payment_key in (select key from planted);

-- @fault G-08 | bridge | a product is dropped | C
-- @rows
select entity_key as key from public.channel_external_refs where external_ref_kind = 'BALISNAP_PRODUCT_ID'
order by entity_key limit 1;
-- @plant
delete from public.catalog_product where product_key in (select key from planted);
-- @names
select 'balisnap.TourProduct:' || r.external_ref from public.channel_external_refs as r
inner join planted as p on r.entity_key = p.key where r.external_ref_kind = 'BALISNAP_PRODUCT_ID';

-- @fault G-08 | bridge | two products are one | C
-- @rows
select external_ref_key, 'balisnap.TourProduct:' || external_ref as key from public.channel_external_refs
where external_ref_kind = 'BALISNAP_PRODUCT_ID' order by entity_key desc limit 1;
-- @plant
update public.channel_external_refs set entity_key = (
    select min(entity_key::text)::uuid from public.channel_external_refs
    where external_ref_kind = 'BALISNAP_PRODUCT_ID'
) where external_ref_key in (select external_ref_key from planted);

-- @fault G-08 | bridge | two variants are one | C
-- @rows
select external_ref_key, 'balisnap.TourVariant:' || external_ref as key from public.channel_external_refs
where external_ref_kind = 'BALISNAP_VARIANT_ID' order by entity_key desc limit 1;
-- @plant
update public.channel_external_refs set entity_key = (
    select min(entity_key::text)::uuid from public.channel_external_refs
    where external_ref_kind = 'BALISNAP_VARIANT_ID'
) where external_ref_key in (select external_ref_key from planted);

-- @fault G-08 | bridge | a package leads to no product of the shop | C
-- @rows
select external_ref_key, 'bstadmin.tour_packages:' || external_ref as key from public.channel_external_refs
where entity_type = 'PRODUCT' and external_ref_kind = 'BSTADMIN_PACKAGE_ID' order by entity_key limit 1;
-- @plant
insert into public.catalog_product (product_key, slug, name)
values ('ffffffff-ffff-4fff-bfff-ffffffffffff', 'elsewhere', 'Elsewhere');
update public.channel_external_refs set entity_key = 'ffffffff-ffff-4fff-bfff-ffffffffffff'
where external_ref_key in (select external_ref_key from planted);

-- @fault G-08 | bridge | a rate is dropped, and its currency under review | C
-- @rows
select r.variant_rate_key, l.rate_plan_id, 'balisnap.VariantRatePlan:' || l.rate_plan_id as key
from landing_balisnap."VariantRatePlan" as l
inner join public.catalog_variant_rate as r
    on r.variant_rate_key = rulebook.row_key('rate', 'balisnap', 'VariantRatePlan', l.rate_plan_id::text)
order by l.rate_plan_id limit 1;
-- @plant
delete from public.catalog_variant_rate where variant_rate_key in (select variant_rate_key from planted);
insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk, reason_code)
select
    gen_random_uuid(), 'CATALOG_EXTENDED_METADATA', 'balisnap', 'VariantRatePlan', rate_plan_id::text, 'INVALID_SOURCE'
from planted;

-- @fault G-08 | bridge | two swapped prices | C
-- @rows
select distinct on (r.price) r.variant_rate_key, r.price, 'balisnap.VariantRatePlan:' || l.rate_plan_id as key
from landing_balisnap."VariantRatePlan" as l
inner join public.catalog_variant_rate as r
    on r.variant_rate_key = rulebook.row_key('rate', 'balisnap', 'VariantRatePlan', l.rate_plan_id::text)
where r.currency_code = 'USD' order by r.price, l.rate_plan_id limit 2;
-- @plant
update public.catalog_variant_rate as r set price = o.price
from planted as p inner join planted as o on p.key <> o.key where r.variant_rate_key = p.variant_rate_key;

-- @fault G-08 | bridge | a valid booking waits in the queue | D
-- @rows
select external_ref_key, source_pk, 'balisnap.Booking:' || source_pk as key from public.channel_external_refs
where external_ref_kind = 'BALISNAP_BOOKING_ID' order by external_ref_key limit 1;
-- @plant
delete from public.channel_external_refs where external_ref_key in (select external_ref_key from planted);
insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk, reason_code)
select gen_random_uuid(), 'BOOKING_REVIEW', 'balisnap', 'Booking', source_pk, 'INVALID_SOURCE' from planted;

-- @fault G-08 | bridge | an amount is one cent off | D
-- @rows
select booking_key from public.booking_core order by booking_key limit 1;
-- @plant
update public.booking_core set total_price = total_price + 0.01 where booking_key in (select booking_key from planted);
-- @names
select case r.source_table when 'Booking' then 'balisnap.Booking:' else 'bstadmin.bookings:' end || r.source_pk
from public.channel_external_refs as r inner join planted as p on r.entity_key = p.booking_key
where r.external_ref_kind in ('BALISNAP_BOOKING_ID', 'BSTADMIN_BOOKING_ID');

-- @fault G-08 | bridge | two swapped amounts | D
-- @rows
select distinct on (c.total_price) c.booking_key, c.total_price, 'bstadmin.bookings:' || r.external_ref as key
from public.booking_core as c
inner join public.channel_external_refs as r on c.booking_key = r.entity_key
where r.external_ref_kind = 'BSTADMIN_BOOKING_ID' and c.channel_code = 'GYG' and c.currency_code = 'USD'
and c.booking_key in (
    select o.entity_key from public.channel_external_refs as o
    where o.external_ref_kind = 'BSTADMIN_BOOKING_ID' group by o.entity_key having count(*) = 1
)
order by c.total_price, c.booking_key limit 2;
-- @plant
update public.booking_core as c set total_price = o.total_price
from planted as p inner join planted as o on p.key <> o.key where c.booking_key = p.booking_key;

-- @fault G-08 | landing | two swapped amounts | D
-- @rows
select distinct on (l.total_price) l.booking_id, l.total_price, 'bstadmin.bookings:' || l.booking_id as key
from landing_bstadmin.bookings as l
where l.source::text = 'GYG' and l.currency = 'USD' and l.booking_id::text in (
    select min(o.external_ref) from public.channel_external_refs as o
    where o.external_ref_kind = 'BSTADMIN_BOOKING_ID' group by o.entity_key having count(*) = 1
)
order by l.total_price, l.booking_id limit 2;
-- @plant
update landing_bstadmin.bookings as l set total_price = o.total_price
from planted as p inner join planted as o on p.booking_id <> o.booking_id where l.booking_id = p.booking_id;

-- @fault G-08 | bridge | an amount in another currency | D
-- @rows
select c.booking_key, 'bstadmin.bookings:' || min(r.external_ref) as key
from public.booking_core as c
inner join public.channel_external_refs as r on c.booking_key = r.entity_key
where r.external_ref_kind = 'BSTADMIN_BOOKING_ID' and c.channel_code = 'GYG' and c.currency_code = 'USD'
group by c.booking_key having count(*) = 1 order by c.booking_key limit 1;
-- @plant
update public.booking_core set currency_code = 'IDR' where booking_key in (select booking_key from planted);

-- @fault G-08 | bridge | a day shifted | D
-- @rows
select c.booking_key, 'bstadmin.bookings:' || min(r.external_ref) as key
from public.booking_core as c
inner join public.channel_external_refs as r on c.booking_key = r.entity_key
where r.external_ref_kind like '%BOOKING_ID' and c.channel_code = 'GYG'
group by c.booking_key having count(*) = 1 order by c.booking_key limit 1;
-- @plant
update public.booking_core set tour_date = tour_date + 1 where booking_key in (select booking_key from planted);

-- @fault G-08 | bridge | a day shifted, of a booking of the web | D
-- @rows
select c.booking_key, 'balisnap.Booking:' || min(r.external_ref) as key
from public.booking_core as c
inner join public.channel_external_refs as r on c.booking_key = r.entity_key
where r.external_ref_kind like '%BOOKING_ID'
group by c.booking_key having count(*) = 1 and min(r.external_ref_kind) = 'BALISNAP_BOOKING_ID'
order by c.booking_key limit 1;
-- @plant
update public.booking_core set tour_date = tour_date - 1 where booking_key in (select booking_key from planted);

-- @fault G-08 | landing | a day shifted | D
-- @rows
select min(r.external_ref)::integer as booking_id, 'bstadmin.bookings:' || min(r.external_ref) as key
from public.booking_core as c
inner join public.channel_external_refs as r on c.booking_key = r.entity_key
where r.external_ref_kind like '%BOOKING_ID' and c.channel_code = 'GYG'
group by c.booking_key having count(*) = 1 order by c.booking_key limit 1;
-- @plant
update landing_bstadmin.bookings set tour_date = tour_date + interval '1 day'
where booking_id in (select booking_id from planted);

-- @fault G-08 | bridge | an item's amount is another | D
-- @rows
select s.booking_item_key, 'balisnap.BookingItem:' || l.booking_item_id as key
from landing_balisnap."BookingItem" as l
inner join public.booking_item_snapshot as s
    on s.booking_item_key = rulebook.named_key('booking', 'balisnap:BookingItem:' || l.booking_item_id)
order by l.booking_item_id limit 1;
-- @plant
update public.booking_item_snapshot set total_amount = total_amount + 1
where booking_item_key in (select booking_item_key from planted);

-- @fault G-08 | bridge | an item's price for one is another | D
-- @rows
select s.booking_item_key, 'balisnap.BookingItem:' || l.booking_item_id as key
from landing_balisnap."BookingItem" as l
inner join public.booking_item_snapshot as s
    on s.booking_item_key = rulebook.named_key('booking', 'balisnap:BookingItem:' || l.booking_item_id)
order by l.booking_item_id limit 1;
-- @plant
update public.booking_item_snapshot set adult_unit_price = adult_unit_price + 0.01
where booking_item_key in (select booking_item_key from planted);

-- @fault G-08 | bridge | an item of another variant | D
-- @rows
select s.booking_item_key, 'balisnap.BookingItem:' || l.booking_item_id as key
from landing_balisnap."BookingItem" as l
inner join public.booking_item_snapshot as s
    on s.booking_item_key = rulebook.named_key('booking', 'balisnap:BookingItem:' || l.booking_item_id)
order by l.booking_item_id limit 1;
-- @plant
update public.booking_item_snapshot set variant_external_id = '1' || variant_external_id
where booking_item_key in (select booking_item_key from planted);

-- @fault G-08 | bridge | a traveller is dropped | D
-- @rows
select booking_key, 'balisnap.BookingTraveler:' || (traveler_rows -> 0 ->> 'traveler_id') as key
from public.booking_party where jsonb_array_length(traveler_rows) > 0 order by booking_key limit 1;
-- @plant
update public.booking_party set traveler_rows = traveler_rows - 0
where booking_key in (select booking_key from planted);

-- @fault G-08 | bridge | a payment is dropped | E
-- @rows
select e.payment_key, 'balisnap.Payment:' || l.payment_id as key
from landing_balisnap."Payment" as l
inner join public.payment_event as e
    on e.payment_key = rulebook.row_key('payment', 'balisnap', 'Payment', l.payment_id::text)
order by l.payment_id limit 1;
-- @plant
delete from public.payment_event where payment_key in (select payment_key from planted);

-- @fault G-08 | bridge | a payment is dropped, asked of the bridge as it stands | A
-- @rows
select e.payment_key, 'balisnap.Payment:' || l.payment_id as key
from landing_balisnap."Payment" as l
inner join public.payment_event as e
    on e.payment_key = rulebook.row_key('payment', 'balisnap', 'Payment', l.payment_id::text)
order by l.payment_id limit 1;
-- @plant
delete from public.payment_event where payment_key in (select payment_key from planted);

-- @fault G-08 | bridge | two payments' amounts are swapped | E
-- @rows
select distinct on (e.amount) e.payment_key, e.amount, 'balisnap.Payment:' || l.payment_id as key
from landing_balisnap."Payment" as l
inner join public.payment_event as e
    on e.payment_key = rulebook.row_key('payment', 'balisnap', 'Payment', l.payment_id::text)
where e.currency_code = 'USD' order by e.amount, l.payment_id limit 2;
-- @plant
update public.payment_event as e set amount = o.amount
from planted as p inner join planted as o on p.key <> o.key where e.payment_key = p.payment_key;

-- @fault G-08 | bridge | a finance is dropped | E
-- @rows
select finance_bridge_key, 'bstadmin.booking_finances:' || booking_finance_id as key
from public.ops_finance_bridge order by finance_bridge_key limit 1;
-- @plant
delete from public.ops_finance_bridge where finance_bridge_key in (select finance_bridge_key from planted);

-- @fault G-08 | bridge | a finance is dropped, and a queue row of another kind | E
-- @rows
select finance_bridge_key, booking_finance_id, 'bstadmin.booking_finances:' || booking_finance_id as key
from public.ops_finance_bridge order by finance_bridge_key limit 1;
-- @plant
insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk, reason_code)
select gen_random_uuid(), 'PAYMENT_LINK', 'bstadmin', 'booking_finances', booking_finance_id::text, 'MULTI_MATCH'
from planted;
delete from public.ops_finance_bridge where finance_bridge_key in (select finance_bridge_key from planted);

-- @fault G-08 | bridge | a finance on another booking | E
-- @rows
select finance_bridge_key, 'bstadmin.booking_finances:' || booking_finance_id as key
from public.ops_finance_bridge order by finance_bridge_key limit 1;
-- @plant
update public.ops_finance_bridge set booking_key = (
    select c.booking_key from public.booking_core as c
    where c.booking_key not in (select f.booking_key from public.ops_finance_bridge as f) order by 1 limit 1
) where finance_bridge_key in (select finance_bridge_key from planted);

-- @fault G-08 | landing | a finance hides an unpaid item | E
-- @rows
select min(i.finance_item_id) as finance_item_id, 'bstadmin.booking_finance_items:' || min(i.finance_item_id) as key
from landing_bstadmin.booking_finance_items as i
inner join public.ops_finance_bridge as f on i.booking_finance_id = f.booking_finance_id
where f.settlement_status = 'SETTLED';
-- @plant
update landing_bstadmin.booking_finance_items set paid = false
where finance_item_id in (select finance_item_id from planted);

-- @fault G-08 | landing | a landed row is dropped | D
-- @plant
delete from landing_balisnap."BookingTraveler" where traveler_id = (
    select min(traveler_id) from landing_balisnap."BookingTraveler"
);
-- @names
values ('balisnap.BookingTraveler');

-- @fault G-08 | landing | a table was lost in a crash | C
-- @plant
truncate landing_balisnap."TourImage";
-- @names
values ('balisnap.TourImage');

-- @fault G-08 | landing | every table was lost in a crash | C
-- @plant
truncate
landing_balisnap."TourPackage", landing_balisnap."TourImage", landing_balisnap."TourProduct",
landing_balisnap."TourVariant", landing_balisnap."VariantRatePlan", landing_balisnap."VariantItinerary",
landing_balisnap."Departure", landing_balisnap."Booking", landing_balisnap."BookingItem",
landing_balisnap."BookingTraveler", landing_balisnap."Payment", landing_bstadmin.tours,
landing_bstadmin.tour_packages, landing_bstadmin.tour_images, landing_bstadmin.tour_itineraries,
landing_bstadmin.bookings, landing_bstadmin.booking_finances, landing_bstadmin.booking_finance_items;
-- @names
select distinct source || '.' || table_name from phase2.landing_tables where row_count > 0;
