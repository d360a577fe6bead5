-- Grain: one landed booking item. Those of one shop booking per identity are carried, cancelled ones only when all are.
-- What lies on a booking that no source has any more stays there (mapping 2): it is judged as if it were not bridged.
-- One that names other travellers or another variant than its source is not carried; its money is all its amounts.
{{ config(twin='kept', indexes=[{'columns': ['booking_id']}, {'columns': ['bridge_key']}]) }}

with landed as (
    select
        items.booking_item_id,
        items.booking_id,
        items.item_status,
        currencies.currency_code,
        {{ function('norm_money') }}(items.total_amount) as amount,
        links.booking_id is not null as has_booking,
        links.booking_key,
        snapshots.booking_item_key,
        snapshots.booking_key as found_on,
        snapshots.currency_code as found_currency_code,
        snapshots.total_amount as found_amount,
        snapshots.adult_unit_price = {{ function('norm_money') }}(items.adult_unit_price)
        and snapshots.child_unit_price = {{ function('norm_money') }}(items.child_unit_price)
        and snapshots.discount_amount = {{ function('norm_money') }}(items.discount_amount)
        and snapshots.tax_amount = {{ function('norm_money') }}(items.tax_amount) as has_its_prices,
        snapshots.variant_external_id = items.variant_id::text
        and snapshots.adult_qty = {{ function('norm_count') }}(items.adult_qty)
        and snapshots.child_qty = {{ function('norm_count') }}(items.child_qty)
        and snapshots.infant_qty = {{ function('norm_count') }}(items.infant_qty) as has_its_travellers,
        fresher.booking_key is not null as is_fresher
    from {{ source('balisnap', 'BookingItem') }} as items
    left join ({{ recon_currencies(source('balisnap', 'BookingItem'), 'currency_code') }}) as currencies
        on items.currency_code = currencies.code
    left join {{ ref('recon_booking_links') }} as links
        on items.booking_id = links.booking_id and links.source_system = 'balisnap'
    left join {{ source('bridge', 'booking_item_snapshot') }} as snapshots
        on
            {{ function('named_key') }}('booking', 'balisnap:BookingItem:' || items.booking_item_id::text)
            = snapshots.booking_item_key
    left join {{ ref('recon_fresher_bookings') }} as fresher on links.booking_key = fresher.booking_key
),

siblings as (
    select
        booking_id,
        booking_key,
        bool_and(item_status = 'CANCELLED') as all_cancelled,
        count(*) filter (where found_on = booking_key) > 0 as is_carrier
    from landed
    group by booking_id, booking_key
),

carried as (
    select booking_key
    from siblings
    where is_carrier and booking_key is not null
    group by booking_key
),

left_behind as (
    select landed.booking_item_id
    from landed
    where
        landed.found_on is not null
        and landed.found_on is distinct from landed.booking_key
        and not exists (
            select 1 from {{ ref('recon_booking_links') }} as links
            where links.booking_key = landed.found_on
        )
),

-- an item of its own has no reason to wait: it goes where its booking goes
queued as (
    {{ recon_queued('balisnap', 'Booking', 'BOOKING_REVIEW', ['INVALID_SOURCE']) }}
),

judged as (
    select
        landed.*,
        case
            when
                landed.booking_item_key is not null and landed.found_on = landed.booking_key
                and (landed.has_its_travellers or landed.is_fresher)
                then 'bridged'
            when landed.booking_item_key is not null and left_behind.booking_item_id is null then 'unaccounted'
            when not siblings.is_carrier and carried.booking_key is not null then 'merged'
            when landed.item_status = 'CANCELLED' and not siblings.all_cancelled and landed.booking_key is not null
                then 'excluded'
            when landed.is_fresher then 'excluded'
            when landed.booking_key is null and queued.source_pk is not null then 'queued'
            else 'unaccounted'
        end as category
    from landed
    -- a landed booking has one link at most: its id says which, and a second condition would be taken for a rare one
    inner join siblings on landed.booking_id = siblings.booking_id
    left join carried on landed.booking_key = carried.booking_key
    left join left_behind on landed.booking_item_id = left_behind.booking_item_id
    left join queued on landed.booking_key is null and landed.booking_id::text = queued.source_pk
),

reasoned as (
    select
        *,
        case category
            when 'merged' then 'another booking of the identity brings the items'
            when 'excluded'
                then
                    case
                        when item_status = 'CANCELLED' then 'cancelled beside items that are not'
                        else 'the bridge is newer than the sources'
                    end
            when 'queued' then 'its booking is in the unmapped queue'
        end as reason,
        found_currency_code = currency_code and found_amount = greatest(amount, 0) and has_its_prices as agrees
    from judged
)

select
    'balisnap.BookingItem' as source,
    booking_item_id::text as source_key,
    booking_item_key as bridge_key,
    booking_id,
    booking_key,
    category,
    reason,
    currency_code,
    amount,
    case
        when category <> 'bridged' then category
        when agrees and amount < 0 then 'excluded'
        when agrees then 'bridged'
        when is_fresher then 'excluded'
        else 'unaccounted'
    end as money_category,
    case
        when category <> 'bridged' then reason
        when agrees and amount < 0 then 'negative, bridged as 0 and under review'
        when not agrees and is_fresher then 'the bridge is newer than the sources'
    end as money_reason
from reasoned
