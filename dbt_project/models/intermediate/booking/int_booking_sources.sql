with balisnap as (
    select
        'balisnap'::text as source_system,
        'Booking'::text as source_table,
        bookings.booking_id,
        'DIRECT'::text as channel_code,
        bookings.external_ref,
        bookings.created_at,
        bookings.updated_at,
        not {{ function('is_bridgeable_date') }}(bookings.travel_day) as lacks_travel_date,
        not {{ function('is_bridgeable_date') }}((bookings.created_at at time zone 'UTC')::date) as lacks_created_at,
        totals.booking_id is not null as has_items,
        {{ function('payment_strength') }}(
            coalesce(proof.has_paid, false), coalesce(proof.paid_with_capture, false),
            coalesce(proof.paid_with_ref, false), false, null::timestamptz,
            {{ function('balisnap_says_paid') }}(bookings.status_v2, bookings.status)
        ) as strength
    from {{ ref('stg_balisnap__bookings') }} as bookings
    left join {{ ref('int_booking_item_totals') }} as totals on bookings.booking_id = totals.booking_id
    left join {{ ref('int_payment_proof') }} as proof on bookings.booking_id = proof.booking_id
    where {{ touched_booking('balisnap', 'bookings.booking_id') }}
),

bstadmin as (
    select
        'bstadmin'::text as source_system,
        'bookings'::text as source_table,
        booking_id,
        channel_code,
        external_ref,
        created_at,
        updated_at,
        not {{ function('is_bridgeable_date') }}(tour_date) as lacks_travel_date,
        not {{ function('is_bridgeable_date') }}((created_at at time zone 'UTC')::date) as lacks_created_at,
        false as has_items,
        {{ function('payment_strength') }}(false, false, false, is_paid, paid_at, false) as strength
    from {{ ref('stg_bstadmin__bookings') }}
    where {{ touched_booking('bstadmin') }}
),

-- Materialised: a normalised ref is costly, and it is asked for several times below.
bookings as materialized (
    select * from balisnap
    union all
    select * from bstadmin
),

-- A made-up ref may be someone's real ref, of whichever source, bridged or not (mapping 1).
real_refs as (
    select distinct
        channel_code,
        external_ref
    from bookings
    where external_ref like 'BS-%' or external_ref like 'OPS-%'
),

named as (
    select
        *,
        case when external_ref is null then {{ function('made_up_ref') }}(source_system, booking_id) end as made_up_ref
    from bookings
),

identified as (
    select
        named.source_system,
        named.source_table,
        named.booking_id,
        named.channel_code,
        named.lacks_travel_date,
        named.lacks_created_at,
        named.created_at,
        named.updated_at,
        named.has_items,
        named.strength,
        case
            when named.external_ref is not null then named.external_ref
            when real_refs.external_ref is null then named.made_up_ref
            when named.source_system = 'balisnap' then named.made_up_ref || '-BALISNAP'
            else named.made_up_ref || '-BSTADMIN'
        end as external_booking_ref,
        named.made_up_ref is not null as is_ref_made_up,
        real_refs.external_ref is not null as is_ref_disputed,
        coalesce(length(named.external_ref) > 128, false) as has_long_ref
    from named
    left join real_refs
        on
            named.channel_code = real_refs.channel_code
            and named.made_up_ref = real_refs.external_ref
),

-- One sort serves every window: proof first, then the later change, then balisnap, then the higher id (mapping 4.3).
-- Only DIRECT has candidates of both sources, so "then, on DIRECT, balisnap" needs no condition.
ranked as (
    select
        *,
        row_number() over best_first as candidate_rank,
        count(*) filter (where source_system = 'balisnap') over best_first as balisnap_rank,
        count(*) filter (where source_system = 'bstadmin') over best_first as bstadmin_rank,
        count(*) filter (where has_items) over best_first as items_rank,
        count(*) over identity as candidates,
        max(updated_at) over identity as latest_updated_at
    from identified
    where not (has_long_ref or lacks_travel_date or lacks_created_at)
    window
        identity as (partition by channel_code collate "C", external_booking_ref collate "C"),
        best_first as (
            partition by channel_code collate "C", external_booking_ref collate "C"
            order by strength desc, updated_at desc nulls last, source_system collate "C", booking_id desc
            rows between unbounded preceding and current row
        )
)

select
    source_system,
    source_table,
    booking_id::text as source_pk,
    booking_id,
    channel_code,
    external_booking_ref,
    is_ref_made_up,
    is_ref_disputed,
    true as is_candidate,
    has_long_ref,
    lacks_travel_date,
    lacks_created_at,
    created_at,
    updated_at,
    strength,
    candidate_rank::integer as candidate_rank,
    case source_system when 'balisnap' then balisnap_rank else bstadmin_rank end::integer as source_rank,
    has_items and items_rank = 1 as carries_items,
    candidates::integer as candidates,
    latest_updated_at
from ranked

union all

select
    source_system,
    source_table,
    booking_id::text as source_pk,
    booking_id,
    channel_code,
    external_booking_ref,
    is_ref_made_up,
    is_ref_disputed,
    false as is_candidate,
    has_long_ref,
    lacks_travel_date,
    lacks_created_at,
    created_at,
    updated_at,
    strength,
    null::integer as candidate_rank,
    null::integer as source_rank,
    false as carries_items,
    null::integer as candidates,
    null::timestamptz as latest_updated_at
from identified
where has_long_ref or lacks_travel_date or lacks_created_at
