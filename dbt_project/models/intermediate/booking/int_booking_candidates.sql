with sources as (
    select * from {{ ref('int_booking_sources') }}
    where is_candidate
),

identities as (
    select * from {{ ref('int_booking_identities') }}
),

identified as (
    select
        identities.booking_key,
        identities.fill_only,
        sources.channel_code,
        sources.external_booking_ref,
        sources.source_system,
        sources.source_table,
        sources.source_pk,
        sources.booking_id,
        sources.strength,
        sources.candidate_rank,
        sources.source_rank,
        sources.candidates,
        sources.carries_items,
        sources.created_at,
        sources.updated_at
    from sources
    inner join identities
        on
            sources.channel_code = identities.channel_code
            and sources.external_booking_ref = identities.external_booking_ref
),

-- Only the candidate whose items are carried has its date, time and total from items (mapping 4.5, 4.9).
balisnap as (
    select
        identified.*,
        'DIRECT'::text as source_enum,
        {{ function('bali_date') }}(bookings.created_at) as received_on,
        coalesce(totals.starts_on, bookings.travel_day) as tour_date,
        totals.starts_at_time as tour_time,
        bookings.currency_code as raw_currency,
        bookings.total_price as raw_total_price,
        totals.booking_id is not null as has_carried_items,
        totals.total_amount as items_total,
        totals.currency_code as items_currency,
        bookings.number_of_adult,
        bookings.number_of_child,
        bookings.status,
        bookings.status_v2,
        null::boolean as is_paid,
        null::timestamptz as paid_at,
        bookings.package_id,
        bookings.note,
        null::integer as assigned_driver_id,
        null::timestamptz as assigned_at
    from identified
    inner join {{ ref('stg_balisnap__bookings') }} as bookings on identified.booking_id = bookings.booking_id
    left join {{ ref('int_booking_item_totals') }} as totals
        on identified.carries_items and bookings.booking_id = totals.booking_id
    where identified.source_system = 'balisnap'
),

bstadmin as (
    select
        identified.*,
        bookings.source_enum,
        bookings.received_on,
        bookings.tour_date,
        bookings.tour_time,
        bookings.currency_code as raw_currency,
        bookings.total_price as raw_total_price,
        false as has_carried_items,
        null::numeric as items_total,
        null::text as items_currency,
        bookings.number_of_adult,
        bookings.number_of_child,
        bookings.status,
        null::text as status_v2,
        bookings.is_paid,
        bookings.paid_at,
        bookings.package_id,
        bookings.note,
        bookings.assigned_driver_id,
        bookings.assigned_at
    from identified
    inner join {{ ref('stg_bstadmin__bookings') }} as bookings on identified.booking_id = bookings.booking_id
    where identified.source_system = 'bstadmin'
),

candidates as (
    select * from balisnap
    union all
    select * from bstadmin
),

priced as (
    select
        *,
        {{ function('norm_currency') }}(raw_currency) as currency_code,
        {{ function('is_currency') }}(raw_currency) as has_currency
    from candidates
),

-- The items' sum counts only when they are all in the booking's currency (mapping 4.5).
totalled as (
    select
        *,
        (has_carried_items and items_currency is distinct from currency_code) as has_mixed_currency,
        case
            when has_carried_items and items_currency = currency_code then items_total
            else raw_total_price
        end as raw_total
    from priced
)

select
    booking_key,
    channel_code,
    external_booking_ref,
    fill_only,
    source_system,
    source_table,
    source_pk,
    booking_id,
    strength,
    candidate_rank,
    source_rank,
    candidates,
    carries_items,
    created_at,
    updated_at,
    source_enum,
    received_on,
    tour_date,
    tour_time,
    currency_code,
    case when not has_currency then raw_currency end as bad_currency,
    {{ function('norm_money') }}(raw_total) as total_price,
    case when not {{ function('is_money') }}(raw_total) then raw_total::text end as bad_total,
    has_mixed_currency,
    number_of_adult,
    number_of_child,
    status,
    status_v2,
    is_paid,
    paid_at,
    package_id,
    note,
    assigned_driver_id,
    assigned_at
from totalled
