select
    'E-01'::text as gate_id,
    'payment'::text as entity,
    o.key::text as key,
    o.status,
    true as is_counted,
    o.detail
from {{ ref('recon_orphans') }} as o
where o.batch = 'E' and o.entity = 'payment'

union all

select
    'E-01' as gate_id,
    l.entity,
    l.key::text as key,
    l.status,
    true as is_counted,
    l.detail
from {{ ref('recon_payment_linkage') }} as l
where l.batch = 'E' and l.entity = 'payment' and l.status = 'WRONG_BOOKING'

union all

select
    'E-02' as gate_id,
    'booking' as entity,
    d.booking_key::text as key,
    case when d.is_refunded_after then 'REFUNDED_AFTER_TRIP' else 'DONE_NOT_PAID' end as status,
    not d.is_refunded_after as is_counted,
    jsonb_build_object(
        'channel_code', d.channel_code,
        'external_booking_ref', d.external_booking_ref,
        'customer_payment_status', d.customer_payment_status
    ) as detail
from {{ ref('recon_done_unpaid') }} as d

union all

select
    'E-03' as gate_id,
    'capture' as entity,
    concat_ws(':', s.sample_key, s.capture_id) as key,
    s.status,
    true as is_counted,
    s.detail
from {{ ref('recon_audit_sample') }} as s
where not s.agrees

union all

select
    'E-04' as gate_id,
    'booking' as entity,
    d.booking_key::text as key,
    case when d.is_reversed then 'REVERSED' else 'DOWNGRADED' end as status,
    not d.is_reversed as is_counted,
    jsonb_build_object(
        'channel_code', d.channel_code,
        'external_booking_ref', d.external_booking_ref,
        'customer_payment_status', d.customer_payment_status
    ) as detail
from {{ ref('recon_downgrades') }} as d
