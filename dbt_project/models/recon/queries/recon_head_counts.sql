-- Bookings whose adults and children are not those of their items (gate D-03); without any item they differ too.
{{ config(twin='kept') }}

with items as (
    select
        booking_key,
        sum(adult_qty + child_qty) as travellers
    from {{ source('bridge', 'booking_item_snapshot') }}
    group by booking_key
)

select
    'D' as batch,
    'booking' as entity,
    cores.booking_key as key,
    case when items.booking_key is null then 'NO_ITEMS' else 'HEAD_COUNT_DIFFERS' end as status,
    jsonb_build_object(
        'external_booking_ref', cores.external_booking_ref,
        'booking', cores.number_of_adult + cores.number_of_child,
        'items', items.travellers
    ) as detail
from {{ source('bridge', 'booking_core') }} as cores
left join items on cores.booking_key = items.booking_key
where cores.number_of_adult + cores.number_of_child is distinct from items.travellers
