-- Grain: one landed traveller. A traveller goes where the item goes: into the party's rows when the item is carried.
{{ config(twin='kept', indexes=[{'columns': ['booking_id']}]) }}

select
    'balisnap.BookingTraveler' as source,
    items.booking_id,
    landed.traveler_id::text as source_key,
    case when items.category = 'bridged' then items.booking_key end as bridge_key,
    case
        when items.category is null or items.category <> 'bridged' then coalesce(items.category, 'unaccounted')
        when parties.traveler_rows @> jsonb_build_array(jsonb_build_object('traveler_id', landed.traveler_id))
            then 'bridged'
        when fresher.booking_key is not null then 'excluded'
        else 'unaccounted'
    end as category,
    case
        when items.category <> 'bridged' then items.reason
        when parties.traveler_rows @> jsonb_build_array(jsonb_build_object('traveler_id', landed.traveler_id)) then null
        when fresher.booking_key is not null then 'the bridge is newer than the sources'
    end as reason,
    null::text as currency_code,
    null::numeric as amount,
    null::text as money_category,
    null::text as money_reason
from {{ source('balisnap', 'BookingTraveler') }} as landed
left join {{ ref('recon_rows_items') }} as items on landed.booking_item_id::text = items.source_key
left join {{ source('bridge', 'booking_party') }} as parties on items.booking_key = parties.booking_key
left join {{ ref('recon_fresher_bookings') }} as fresher on items.booking_key = fresher.booking_key
