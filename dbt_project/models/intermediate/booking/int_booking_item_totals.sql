with items as (
    select * from {{ ref('stg_balisnap__booking_items') }}
    where {{ touched_booking('balisnap') }}
),

-- A departure with an infinite or impossible date counts as none (mapping 4.5).
departures as (
    select
        departure_id,
        starts_at,
        {{ function('bali_date') }}(starts_at) as starts_on
    from {{ ref('stg_balisnap__departures') }}
    where {{ function('is_bridgeable_date') }}({{ function('bali_date') }}(starts_at))
),

-- Cancelled items are carried only when all of a booking's items are cancelled (mapping 4.9).
bookings as (
    select
        booking_id,
        bool_and(is_cancelled) as all_cancelled,
        count(*) as items
    from items
    group by booking_id
),

carried as (
    select
        items.*,
        bookings.all_cancelled,
        bookings.items,
        departures.departure_id as known_departure_id,
        {{ function('norm_currency') }}(items.currency_code) as item_currency
    from items
    inner join bookings on items.booking_id = bookings.booking_id
    left join departures on items.departure_id = departures.departure_id
    where bookings.all_cancelled or not items.is_cancelled
),

-- The first item is the one with the lowest id: min() over pairs compares that first and needs no sort.
totals as (
    select
        booking_id,
        all_cancelled,
        max(items) as items,
        count(*) as carried_items,
        sum(total_amount) as total_amount,
        case when min(item_currency) = max(item_currency) then min(item_currency) end as currency_code,
        least(sum({{ function('norm_count') }}(adult_qty)), 2147483647)::integer as adult_qty,
        least(sum({{ function('norm_count') }}(child_qty)), 2147483647)::integer as child_qty,
        least(sum({{ function('norm_count') }}(infant_qty)), 2147483647)::integer as infant_qty,
        (min(array[booking_item_id, variant_id]))[2] as first_variant_id,
        (min(array[booking_item_id, known_departure_id]) filter (where known_departure_id is not null))[2]
            as first_departure_id
    from carried
    group by booking_id, all_cancelled
)

select
    totals.booking_id,
    totals.all_cancelled,
    totals.items,
    totals.carried_items,
    totals.total_amount,
    totals.currency_code,
    totals.adult_qty,
    totals.child_qty,
    totals.infant_qty,
    totals.first_variant_id,
    totals.first_departure_id,
    departures.starts_on,
    -- midnight in Bali means that the time is not known
    nullif((departures.starts_at at time zone 'Asia/Makassar')::time, time '00:00') as starts_at_time
from totals
left join departures on totals.first_departure_id = departures.departure_id
