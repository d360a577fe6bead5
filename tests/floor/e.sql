-- sqlfluff:exclude_rules:ST05,ST06,RF04,RF02,RF03,AM04,AM06
-- Payments and finances as they are, each with its booking's key.
create view floor.payment_event as
select
    rulebook.row_key('payment', 'balisnap', 'Payment', p.payment_id::text) as payment_key,
    b.booking_key,
    p.payment_date at time zone 'UTC' as payment_time,
    rulebook.norm_money(p.amount) as amount,
    rulebook.norm_currency(p.currency_code) as currency_code,
    left(rulebook.norm_code(p.payment_method), 32) as method, -- noqa: RF04
    left(rulebook.norm_code(p.gateway), 64) as gateway,
    rulebook.norm_text(p.gateway_order_id) as gateway_order_id,
    rulebook.norm_text(p.gateway_capture_id) as gateway_capture_id,
    case
        when row_number() over (partition by rulebook.norm_text(p.payment_ref) order by p.payment_id) = 1
            then rulebook.norm_text(p.payment_ref)
    end as payment_ref,
    left(
        coalesce(rulebook.norm_text(p.payment_status), '') || '|'
        || coalesce(rulebook.norm_text(p.payment_status_v2), ''),
        64
    ) as status_raw,
    rulebook.payment_status(p.payment_status_v2, p.payment_status) as payment_status_v2,
    p.raw_payload
from landing_balisnap."Payment" as p
inner join floor.booking as b on b.source_system = 'balisnap' and p.booking_id = b.booking_id
where
    coalesce(greatest(length(p.payment_ref), length(p.gateway_order_id), length(p.gateway_capture_id)), 0) <= 128
    and p.payment_date between timestamp '1900-01-01' and timestamp '2199-12-31';

create view floor.ops_finance_bridge as
select distinct on (b.booking_key)
    rulebook.row_key('finance', 'bstadmin', 'booking_finances', f.booking_finance_id::text) as finance_bridge_key,
    b.booking_key,
    f.booking_finance_id,
    f.pattern_id,
    f.validated_at,
    f.is_locked,
    rulebook.settlement_status(f.finance_items, f.unpaid_items) as settlement_status
from floor.finance as f
inner join floor.booking as b on b.source_system = 'bstadmin' and f.booking_id = b.booking_id
order by b.booking_key, f.booking_finance_id;

-- The settlement recompute: nothing to do where the payments say what they said in batch D.
update public.booking_core as t
set customer_payment_status = s.customer_payment_status, ops_fulfillment_status = s.ops_fulfillment_status
from floor.status as s
where
    t.booking_key = s.booking_key
    and (t.customer_payment_status, t.ops_fulfillment_status)
    is distinct from (s.customer_payment_status, s.ops_fulfillment_status);
