-- Batch G: what the pages of the back office look for in the canonical tables. Additive and idempotent: the contract of
-- batch A allows more indexes (gate A-02), not fewer. Writers of these tables wait while one is built.

begin;
set local lock_timeout = '5s';
set local search_path = '';
set local maintenance_work_mem = '256MB';

create extension if not exists pg_trgm with schema public;

-- the order of every list, and its keyset; searches, the board and the finance summary need no look at the rows
create index if not exists ix_booking_core_places
on public.booking_core (tour_date, booking_created_at)
include (
    booking_key, channel_code, external_booking_ref, ops_fulfillment_status, currency_code, number_of_adult,
    number_of_child, total_price
);
create index if not exists ix_booking_core_status_page
on public.booking_core (ops_fulfillment_status, tour_date, booking_created_at);
create index if not exists ix_booking_core_channel_page
on public.booking_core (channel_code, tour_date, booking_created_at);

-- bstadmin's number of a booking, and back
create index if not exists ix_channel_external_refs_of_booking
on public.channel_external_refs (entity_key, external_ref_kind) include (external_ref)
where entity_type = 'BOOKING';
create index if not exists ix_channel_external_refs_by_ops_number
on public.channel_external_refs (external_ref) include (entity_key)
where entity_type = 'BOOKING' and external_ref_kind = 'BSTADMIN_BOOKING_ID';

create index if not exists ix_ops_assignment_of_driver
on public.ops_assignment (driver_id) include (booking_key) where is_active;
create index if not exists ix_ops_assignment_driven
on public.ops_assignment (booking_key) where is_active and driver_id is not null;

-- what the finance summary adds up, without a look at the rows
create index if not exists ix_ops_booking_state_paid
on public.ops_booking_state (booking_key) include (is_paid_flag);
create index if not exists ix_ops_finance_bridge_sums
on public.ops_finance_bridge (booking_key)
include (booking_finance_id, validated_at, is_locked, settlement_status);

-- search by a part of the reference or of the name
create index if not exists ix_booking_core_reference_part
on public.booking_core using gin (external_booking_ref public.gin_trgm_ops);
create index if not exists ix_booking_contact_name_part
on public.booking_contact using gin (main_name public.gin_trgm_ops);
create index if not exists ix_booking_contact_name_of_booking
on public.booking_contact (booking_key) include (main_name);

-- what the queue says of a booking: comparisons, and `phase2 explain`, which finds payments and items too
create index if not exists ix_unmapped_queue_source
on public.unmapped_queue (source_pk);
create index if not exists ix_payment_event_capture
on public.payment_event (gateway_capture_id) where gateway_capture_id is not null;
create index if not exists ix_payment_event_order
on public.payment_event (gateway_order_id) where gateway_order_id is not null;
create index if not exists ix_booking_item_snapshot_of_booking
on public.booking_item_snapshot (booking_key);

commit;
