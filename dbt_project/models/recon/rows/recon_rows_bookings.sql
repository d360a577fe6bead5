-- Grain: one landed booking. Of the candidates that lead to one bridge row, the one whose money the bridge shows stands
-- for it (none: the first); the others are merged as duplicates.
with items as (
    select
        booking_id,
        bool_and(item_status = 'CANCELLED') as all_cancelled,
        sum(total_amount) as total_of_all,
        sum(total_amount) filter (where item_status <> 'CANCELLED') as total_of_live,
        min({{ function('norm_currency') }}(currency_code) collate "C") as lowest_currency,
        max({{ function('norm_currency') }}(currency_code) collate "C") as highest_currency,
        min({{ function('norm_currency') }}(currency_code) collate "C") filter (where item_status <> 'CANCELLED')
            as lowest_live_currency,
        max({{ function('norm_currency') }}(currency_code) collate "C") filter (where item_status <> 'CANCELLED')
            as highest_live_currency
    from {{ source('balisnap', 'BookingItem') }}
    group by booking_id
),

candidates as (
    select
        1 as source_rank,
        'balisnap.Booking' as source,
        landed.booking_id,
        {{ function('norm_currency') }}(landed.currency_code) as currency_code,
        {{ function('norm_money') }}(
            case
                when
                    items.all_cancelled
                    and items.lowest_currency = {{ function('norm_currency') }}(landed.currency_code)
                    and items.highest_currency = {{ function('norm_currency') }}(landed.currency_code)
                    then items.total_of_all
                when
                    not items.all_cancelled
                    and items.lowest_live_currency = {{ function('norm_currency') }}(landed.currency_code)
                    and items.highest_live_currency = {{ function('norm_currency') }}(landed.currency_code)
                    then items.total_of_live
                else landed.total_price
            end
        ) as amount,
        {{ function('travel_day') }}(landed.booking_date) as travel_day,
        {{ function('norm_ref') }}(landed.booking_ref) as real_ref,
        landed.created_at,
        -- with several bookings of the shop in one identity, only one of them brings its items (mapping 4.9)
        {{ function('norm_money') }}(landed.total_price) as amount_without_items
    from {{ source('balisnap', 'Booking') }} as landed
    left join items on landed.booking_id = items.booking_id

    union all

    select
        2 as source_rank,
        'bstadmin.bookings' as source,
        landed.booking_id,
        {{ function('norm_currency') }}(landed.currency) as currency_code,
        {{ function('norm_money') }}(landed.total_price) as amount,
        {{ function('bali_date') }}({{ function('utc_instant') }}(landed.tour_date)) as travel_day,
        {{ function('norm_ref') }}(landed.booking_ref) as real_ref,
        landed.created_at,
        {{ function('norm_money') }}(landed.total_price) as amount_without_items
    from {{ source('bstadmin', 'bookings') }} as landed
),

linked as (
    select
        candidates.*,
        links.booking_key,
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
    inner join {{ ref('recon_booking_links') }} as links
        on
            candidates.booking_id = links.booking_id
            and links.source_system = case candidates.source_rank when 1 then 'balisnap' else 'bstadmin' end
    left join {{ source('bridge', 'booking_core') }} as cores on links.booking_key = cores.booking_key
    left join {{ ref('recon_fresher_bookings') }} as fresher on links.booking_key = fresher.booking_key
),

groups as (
    select
        booking_key,
        count(*) filter (where source_rank = 1) as shop_candidates,
        min(difference * (1::bigint << 40) + place) as first_place
    from linked
    where booking_key is not null
    group by booking_key
),

queued as (
    select 1 as source_rank, b.source_pk from ({{ recon_queued('balisnap', 'Booking') }}) as b

    union all

    select 2 as source_rank, o.source_pk from ({{ recon_queued('bstadmin', 'bookings') }}) as o
),

judged as (
    select
        linked.*,
        linked.difference * (1::bigint << 40) + linked.place = groups.first_place as stands_for_it,
        linked.difference = 0 or (linked.difference = 1 and groups.shop_candidates > 1) as agrees,
        queued.source_pk is not null
        -- only what really cannot be bridged may wait in the queue instead
        and {{ recon_is_unbridgeable('linked.real_ref', 'linked.travel_day', 'linked.created_at') }} as is_queued
    from linked
    left join groups on linked.booking_key = groups.booking_key
    left join queued
        on
            linked.booking_key is null
            and linked.source_rank = queued.source_rank
            and linked.booking_id::text = queued.source_pk
)

select
    source,
    booking_id::text as source_key,
    booking_key as bridge_key,
    case
        when booking_key is null then case when is_queued then 'queued' else 'unaccounted' end
        when stands_for_it then 'bridged'
        else 'merged'
    end as category,
    case
        when booking_key is null then case when is_queued then 'in the unmapped queue' end
        when not stands_for_it then 'duplicate of an identity'
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
