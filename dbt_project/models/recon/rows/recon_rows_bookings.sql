-- Grain: one landed booking. Of the candidates that lead to one bridge row, the one whose money the bridge shows stands
-- for it (none: the first); the others are merged as duplicates. A booking on a day that none of them has is another
-- trip: nobody's row.
{{ config(twin='kept', indexes=[{'columns': ['booking_id']}]) }}

with items as (
    select
        i.booking_id,
        bool_and(i.item_status = 'CANCELLED') as all_cancelled,
        sum(i.total_amount) as total_of_all,
        sum(i.total_amount) filter (where i.item_status <> 'CANCELLED') as total_of_live,
        case when min(k.currency_code) = max(k.currency_code) then min(k.currency_code) end as currency_of_all,
        case
            when
                min(k.currency_code) filter (where i.item_status <> 'CANCELLED')
                = max(k.currency_code) filter (where i.item_status <> 'CANCELLED')
                then min(k.currency_code) filter (where i.item_status <> 'CANCELLED')
        end as currency_of_live
    from {{ source('balisnap', 'BookingItem') }} as i
    left join
        ({{ recon_currencies(source('balisnap', 'BookingItem'), 'currency_code') }}) as k
        on i.currency_code = k.code
    group by i.booking_id
),

candidates as (
    select
        1 as source_rank,
        'balisnap.Booking' as source,
        landed.booking_id,
        refs.entity_key,
        currencies.currency_code,
        {{ function('norm_money') }}(
            case
                when items.all_cancelled and items.currency_of_all = currencies.currency_code then items.total_of_all
                when not items.all_cancelled and items.currency_of_live = currencies.currency_code
                    then items.total_of_live
                else landed.total_price
            end
        ) as amount,
        -- with several bookings of the shop in one identity, only one of them brings its items (mapping 4.9)
        {{ function('norm_money') }}(landed.total_price) as amount_without_items,
        {{ function('travel_day') }}(landed.booking_date) as tour_date
    from {{ source('balisnap', 'Booking') }} as landed
    left join items on landed.booking_id = items.booking_id
    left join ({{ recon_currencies(source('balisnap', 'Booking'), 'currency_code') }}) as currencies
        on landed.currency_code = currencies.code
    left join ({{ recon_refs('BOOKING', 'BALISNAP_BOOKING_ID') }}) as refs
        on landed.booking_id::text = refs.external_ref and refs.channel_code = 'DIRECT'

    union all

    select
        2 as source_rank,
        'bstadmin.bookings' as source,
        landed.booking_id,
        refs.entity_key,
        currencies.currency_code,
        {{ function('norm_money') }}(landed.total_price) as amount,
        {{ function('norm_money') }}(landed.total_price) as amount_without_items,
        {{ function('bali_date') }}({{ function('utc_instant') }}(landed.tour_date)) as tour_date
    from {{ source('bstadmin', 'bookings') }} as landed
    left join ({{ recon_currencies(source('bstadmin', 'bookings'), 'currency') }}) as currencies
        on landed.currency = currencies.code
    left join ({{ recon_channels() }}) as channels on landed.source = channels.source
    left join ({{ recon_refs('BOOKING', 'BSTADMIN_BOOKING_ID') }}) as refs
        on landed.booking_id::text = refs.external_ref and channels.channel_code = refs.channel_code
),

linked as (
    select
        candidates.source_rank,
        candidates.source,
        candidates.booking_id,
        candidates.currency_code,
        candidates.amount,
        cores.booking_key,
        cores.tour_date as found_tour_date,
        candidates.tour_date = cores.tour_date as has_its_day,
        fresher.booking_key is not null as is_fresher,
        case
            when cores.booking_key is null then null
            when
                candidates.currency_code = cores.currency_code
                and greatest(candidates.amount, 0) = cores.total_price then 0
            when
                candidates.currency_code = cores.currency_code
                and greatest(candidates.amount_without_items, 0) = cores.total_price then 1
            else 2
        end as difference,
        candidates.source_rank * (1::bigint << 32) + candidates.booking_id as place
    from candidates
    left join {{ source('bridge', 'booking_core') }} as cores on candidates.entity_key = cores.booking_key
    left join {{ ref('recon_fresher_bookings') }} as fresher on cores.booking_key = fresher.booking_key
),

groups as (
    select
        booking_key,
        count(*) filter (where source_rank = 1) as shop_candidates,
        min(difference * (1::bigint << 40) + place) as first_place,
        bool_or(has_its_day) as has_its_day
    from linked
    where booking_key is not null
    group by booking_key
),

-- an item of the shop may leave on another day than its booking says (mapping 4.5); few have to be asked
departed as (
    select linked.booking_key
    from linked
    inner join groups on linked.booking_key = groups.booking_key and not groups.has_its_day
    inner join {{ source('balisnap', 'BookingItem') }} as i on linked.booking_id = i.booking_id
    inner join {{ source('balisnap', 'Departure') }} as d on i.departure_id = d.departure_id
    where
        linked.source_rank = 1
        and {{ function('bali_date') }}({{ function('utc_instant') }}(d.start_date)) = linked.found_tour_date
    group by linked.booking_key
),

-- only what really cannot be bridged may wait in the queue instead
queued as (
    select
        1 as source_rank,
        landed.booking_id
    from {{ source('balisnap', 'Booking') }} as landed
    inner join ({{ recon_queued('balisnap', 'Booking', 'BOOKING_REVIEW', ['INVALID_SOURCE']) }}) as b
        on landed.booking_id::text = b.source_pk
    where
        {{ recon_is_unbridgeable(
            recon_norm_ref('landed.booking_ref'),
            function('travel_day') ~ '(landed.booking_date)',
            'landed.created_at'
        ) }}

    union all

    select
        2 as source_rank,
        landed.booking_id
    from {{ source('bstadmin', 'bookings') }} as landed
    inner join ({{ recon_queued('bstadmin', 'bookings', 'BOOKING_REVIEW', ['INVALID_SOURCE']) }}) as o
        on landed.booking_id::text = o.source_pk
    where
        {{ recon_is_unbridgeable(
            recon_norm_ref('landed.booking_ref'),
            function('bali_date') ~ '(' ~ function('utc_instant') ~ '(landed.tour_date))',
            'landed.created_at'
        ) }}
),

judged as (
    select
        linked.*,
        linked.difference * (1::bigint << 40) + linked.place = groups.first_place as stands_for_it,
        linked.difference = 0 or (linked.difference = 1 and groups.shop_candidates > 1) as agrees,
        not linked.is_fresher and not groups.has_its_day and departed.booking_key is null as is_another_trip,
        queued.booking_id is not null as is_queued
    from linked
    left join groups on linked.booking_key = groups.booking_key
    left join departed on linked.booking_key = departed.booking_key
    left join queued
        on
            linked.booking_key is null
            and linked.source_rank = queued.source_rank
            and linked.booking_id = queued.booking_id
)

select
    source,
    booking_id,
    booking_id::text as source_key,
    booking_key as bridge_key,
    case
        when booking_key is null then case when is_queued then 'queued' else 'unaccounted' end
        when not stands_for_it then 'merged'
        when is_another_trip then 'unaccounted'
        else 'bridged'
    end as category,
    case
        when booking_key is null then case when is_queued then 'in the unmapped queue' end
        when not stands_for_it then 'duplicate of an identity'
        when is_another_trip then 'on another day than its sources say'
    end as reason,
    currency_code,
    amount,
    case
        when booking_key is null then case when is_queued then 'queued' else 'unaccounted' end
        when not stands_for_it then 'merged'
        when agrees and amount < 0 then 'excluded'
        when agrees then 'bridged'
        when is_fresher then 'excluded'
        else 'unaccounted'
    end as money_category,
    case
        when booking_key is null then case when is_queued then 'in the unmapped queue' end
        when not stands_for_it then 'duplicate of an identity'
        when agrees and amount < 0 then 'negative, bridged as 0 and under review'
        when not agrees and is_fresher then 'the bridge is newer than the sources'
    end as money_reason
from judged
