-- Required query: bookings whose stored status, as the best-ranked bstadmin candidate has it, is not the one that the
-- bridge recomputed (mapping 4.7). Counted and listed, and no gate of its own: the recomputed status wins. A booking
-- that is newer in the bridge than in its sources was not recomputed.
{{ config(twin='kept') }}

with candidates as (
    select
        links.booking_key,
        landed.booking_id,
        {{ function('norm_code') }}(landed.status) as stored,
        case when landed.is_paid then case when isfinite(landed.paid_at) then 2 else 1 end else 0 end as strength,
        {{ function('utc_instant') }}(landed.updated_at) as updated_at
    from {{ source('bstadmin', 'bookings') }} as landed
    inner join {{ ref('recon_booking_links') }} as links
        on landed.booking_id = links.booking_id and links.source_system = 'bstadmin'
    where links.booking_key is not null
),

best as (
    select distinct on (booking_key)
        booking_key,
        booking_id,
        stored
    from candidates
    order by booking_key asc, strength desc, updated_at desc nulls last, booking_id desc
)

select
    'D' as batch,
    'booking' as entity,
    cores.booking_key as key,
    'STORED_STATUS_DIFFERS' as status,
    jsonb_build_object(
        'booking_id', best.booking_id, 'stored', best.stored, 'recomputed', cores.ops_fulfillment_status
    ) as detail
from best
inner join {{ source('bridge', 'booking_core') }} as cores on best.booking_key = cores.booking_key
left join {{ ref('recon_fresher_bookings') }} as fresher on best.booking_key = fresher.booking_key
where best.stored is distinct from cores.ops_fulfillment_status and fresher.booking_key is null
