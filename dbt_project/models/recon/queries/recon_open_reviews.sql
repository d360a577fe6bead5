-- Bridge rows with an open review (mapping 1: BOOKING_REVIEW for bookings, CATALOG_EXTENDED_METADATA for catalog).
-- A queue row names a source row or an identity; the bridge row is the one that came from it.
{{ config(twin='composite') }}

with open_rows as (
    select
        source_system,
        source_table,
        source_pk,
        reason_code
    from {{ source('bridge', 'unmapped_queue') }}
    where status in ('OPEN', 'IN_REVIEW') and queue_type in ('BOOKING_REVIEW', 'CATALOG_EXTENDED_METADATA')
)

select
    'D' as batch,
    'booking' as entity,
    cores.booking_key as key,
    'OPEN_REVIEW' as status,
    jsonb_build_object('reason_code', open_rows.reason_code) as detail
from open_rows
inner join {{ source('bridge', 'booking_core') }} as cores
    on open_rows.source_pk = left(cores.channel_code || ':' || cores.external_booking_ref, 128)
where open_rows.source_system = 'canonical' and open_rows.source_table = 'booking_identity'

union all

select
    'D' as batch,
    'booking' as entity,
    links.booking_key as key,
    'OPEN_REVIEW' as status,
    jsonb_build_object('reason_code', open_rows.reason_code, 'source_pk', open_rows.source_pk) as detail
from open_rows
inner join {{ ref('recon_booking_links') }} as links
    on open_rows.source_system = links.source_system and open_rows.source_pk = links.booking_id::text
where open_rows.source_table in ('Booking', 'bookings') and links.booking_key is not null

union all

select
    'D' as batch,
    'booking' as entity,
    items.booking_key as key,
    'OPEN_REVIEW' as status,
    jsonb_build_object('reason_code', open_rows.reason_code, 'item', open_rows.source_pk) as detail
from open_rows
inner join {{ source('bridge', 'booking_item_snapshot') }} as items
    on
        {{ function('named_key') }}('booking', 'balisnap:BookingItem:' || open_rows.source_pk)
        = items.booking_item_key
where open_rows.source_table = 'BookingItem'

union all

select
    'C' as batch,
    case source_table when 'TourVariant' then 'variant' else 'product' end as entity,
    {{ function('row_key') }}(
        case source_table when 'TourVariant' then 'variant' else 'product' end,
        source_system, source_table, source_pk
    ) as key,
    'OPEN_REVIEW' as status,
    jsonb_build_object('reason_code', reason_code, 'source_pk', source_pk) as detail
from open_rows
where source_table in ('TourProduct', 'TourVariant', 'tour_packages')

union all

select
    'E' as batch,
    'payment' as entity,
    {{ function('row_key') }}('payment', source_system, source_table, source_pk) as key,
    'OPEN_REVIEW' as status,
    jsonb_build_object('reason_code', reason_code, 'source_pk', source_pk) as detail
from open_rows
where source_table = 'Payment'
