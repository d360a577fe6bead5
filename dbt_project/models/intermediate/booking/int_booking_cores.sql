with candidates as (
    select * from {{ ref('int_booking_candidates') }}
),

-- Materialized, or the day would be looked up anew for every row.
run as materialized (
    select {{ function('current_as_of') }}() as as_of
),

-- Most identities have one candidate, which then is everything that a merge would choose.
chosen as (
    select
        winners.booking_key,
        winners.channel_code,
        winners.external_booking_ref,
        winners.fill_only,
        winners.candidates,
        winners.source_system as winner_system,
        winners.source_table as winner_table,
        winners.source_pk as winner_pk,
        winners.updated_at as winner_updated_at,
        winners.tour_date,
        winners.currency_code,
        winners.total_price,
        winners.number_of_adult,
        coalesce(merged.booking_created_at, winners.created_at) as booking_created_at,
        coalesce(merged.booking_date, winners.received_on) as booking_date,
        coalesce(winners.tour_time, merged.tour_time) as tour_time,
        coalesce(winners.number_of_child, merged.number_of_child) as number_of_child,
        coalesce(merged.note, winners.note) as note,
        coalesce(merged.package_system, winners.source_system) as package_system,
        coalesce(merged.package_id, winners.package_id) as package_id,
        coalesce(merged.items_booking_id, case when winners.carries_items then winners.booking_id end)
            as items_booking_id,
        coalesce(merged.balisnap_booking_id, case when winners.source_system = 'balisnap' then winners.booking_id end)
            as balisnap_booking_id,
        coalesce(merged.bstadmin_booking_id, case when winners.source_system = 'bstadmin' then winners.booking_id end)
            as bstadmin_booking_id,
        case
            when winners.candidates > 1 then merged.balisnap_status
            when winners.source_system = 'balisnap' then winners.status
        end as balisnap_status,
        case
            when winners.candidates > 1 then merged.balisnap_status_v2
            when winners.source_system = 'balisnap' then winners.status_v2
        end as balisnap_status_v2,
        case
            when winners.candidates > 1 then merged.bstadmin_status
            when winners.source_system = 'bstadmin' then winners.status
        end as bstadmin_status,
        case
            when winners.candidates > 1 then merged.bstadmin_source_enum
            when winners.source_system = 'bstadmin' then winners.source_enum
        end as bstadmin_source_enum,
        case
            when winners.candidates > 1 then merged.bstadmin_updated_at
            when winners.source_system = 'bstadmin' then winners.updated_at
        end as bstadmin_updated_at,
        case when winners.candidates > 1 then merged.assigned_driver_id else winners.assigned_driver_id end
            as assigned_driver_id,
        case when winners.candidates > 1 then merged.assigned_at else winners.assigned_at end as assigned_at,
        coalesce(merged.is_tour_date_disputed, false) as is_tour_date_disputed,
        coalesce(merged.is_total_disputed, false) as is_total_disputed
    from candidates as winners
    left join {{ ref('int_booking_merges') }} as merged on winners.booking_key = merged.booking_key
    where winners.candidate_rank = 1
),

resolved as (
    select
        chosen.*,
        payments.customer_payment_status,
        payments.paid_at,
        payments.kept_paid,
        totals.adult_qty as items_adult_qty,
        totals.child_qty as items_child_qty,
        totals.infant_qty as items_infant_qty,
        -- the first carried item's variant, else the package (mapping 4.8)
        coalesce(variants.package_ref_type, packages.package_ref_type, 'LEGACY_PACKAGE') as package_ref_type,
        case
            when variants.package_ref_type is not null then variants.package_ref_key else packages.package_ref_key
        end as package_ref_key,
        -- bstadmin owns the fulfilment; a booking that only balisnap has follows balisnap's word (mapping 4.7)
        case
            when chosen.bstadmin_booking_id is not null
                then {{ function('fulfilment_status') }}(
                    chosen.bstadmin_status, finances.finance_items, finances.unpaid_items, finances.validated_at,
                    chosen.tour_date, run.as_of, chosen.assigned_driver_id, finances.pattern_id
                )
            else {{ function('fulfilment_status_direct') }}(
                {{ function('balisnap_says_cancelled') }}(chosen.balisnap_status_v2, chosen.balisnap_status)
                or {{ function('balisnap_says_expired') }}(chosen.balisnap_status_v2, chosen.balisnap_status),
                chosen.tour_date, run.as_of, payments.customer_payment_status = 'PAID'
            )
        end as ops_fulfillment_status,
        chosen.balisnap_booking_id is not null
        and chosen.bstadmin_booking_id is not null
        and chosen.bstadmin_status not in ('CANCELLED', 'NO_SHOW')
        and {{ function('balisnap_says_cancelled') }}(chosen.balisnap_status_v2, chosen.balisnap_status)
            as is_cancel_disputed
    from chosen
    cross join run
    left join {{ ref('int_customer_payment') }} as payments on chosen.booking_key = payments.booking_key
    left join {{ ref('int_booking_finance') }} as finances on chosen.bstadmin_booking_id = finances.booking_id
    left join {{ ref('int_booking_item_totals') }} as totals on chosen.items_booking_id = totals.booking_id
    left join {{ ref('int_booking_catalog_refs') }} as variants
        on variants.asked_for = 'variant' and totals.first_variant_id::text = variants.source_id
    left join {{ ref('int_booking_catalog_refs') }} as packages
        on chosen.package_system = packages.asked_for and chosen.package_id::text = packages.source_id
),

-- What the bridge holds of bookings that are newer there than in the sources: only its nulls are filled (mapping 4.13).
held as (
    select cores.*
    from {{ source('bridge', 'booking_core') }} as cores
    inner join {{ ref('int_booking_identities') }} as identities on cores.booking_key = identities.booking_key
    where identities.fill_only
),

held_states as (
    select states.*
    from {{ source('bridge', 'ops_booking_state') }} as states
    inner join {{ ref('int_booking_identities') }} as identities on states.booking_key = identities.booking_key
    where identities.fill_only
),

filled as (
    select
        resolved.booking_key,
        -- the identity is taken even then: a corrected ref is no new booking
        resolved.channel_code,
        resolved.external_booking_ref,
        resolved.fill_only,
        coalesce(held.source_enum_compat, left(coalesce(resolved.bstadmin_source_enum, 'DIRECT'), 32))
            as source_enum_compat,
        coalesce(held.booking_created_at, resolved.booking_created_at) as booking_created_at,
        coalesce(held.booking_date, resolved.booking_date) as booking_date,
        coalesce(held.tour_date, resolved.tour_date) as tour_date,
        coalesce(
            held.tour_time,
            case when coalesce(held.tour_date, resolved.tour_date) = resolved.tour_date then resolved.tour_time end
        ) as tour_time,
        coalesce(held.currency_code, resolved.currency_code) as currency_code,
        coalesce(held.total_price, greatest(resolved.total_price, 0)) as total_price,
        coalesce(held.number_of_adult, {{ function('norm_count') }}(resolved.number_of_adult)) as number_of_adult,
        coalesce(held.number_of_child, {{ function('norm_count') }}(resolved.number_of_child)) as number_of_child,
        coalesce(held.customer_payment_status, resolved.customer_payment_status) as customer_payment_status,
        coalesce(held.ops_fulfillment_status, resolved.ops_fulfillment_status) as ops_fulfillment_status,
        -- type and key are one value, and LEGACY_PACKAGE is its null
        case
            when held.package_ref_type <> 'LEGACY_PACKAGE' then held.package_ref_type else resolved.package_ref_type
        end as package_ref_type,
        case
            when held.package_ref_type <> 'LEGACY_PACKAGE' then held.package_ref_key else resolved.package_ref_key
        end as package_ref_key,
        coalesce(held.legacy_package_id, resolved.package_id::bigint) as legacy_package_id,
        coalesce(held.note, resolved.note) as note,
        resolved.items_booking_id,
        resolved.items_adult_qty,
        resolved.items_child_qty,
        resolved.items_infant_qty,
        held_states.booking_key is not null as has_held_state,
        held_states.ops_fulfillment_status as held_state_status,
        coalesce(held_states.assigned_driver_id, resolved.assigned_driver_id) as state_driver_id,
        coalesce(
            held_states.assigned_at,
            case
                when
                    coalesce(held_states.assigned_driver_id, resolved.assigned_driver_id)
                    is not distinct from resolved.assigned_driver_id
                    then resolved.assigned_at
            end
        ) as state_assigned_at,
        held_states.is_paid_flag as held_is_paid_flag,
        held_states.paid_at as held_paid_at,
        resolved.paid_at as resolved_paid_at,
        coalesce(
            held_states.updated_from_source,
            case when resolved.bstadmin_booking_id is not null then 'bstadmin' else 'balisnap' end
        ) as state_updated_from_source,
        resolved.assigned_driver_id,
        resolved.assigned_at,
        resolved.bstadmin_booking_id,
        resolved.bstadmin_updated_at,
        resolved.bstadmin_status,
        resolved.ops_fulfillment_status as computed_fulfillment_status,
        resolved.candidates,
        resolved.winner_system,
        resolved.winner_table,
        resolved.winner_pk,
        resolved.winner_updated_at,
        resolved.kept_paid,
        resolved.is_cancel_disputed,
        resolved.is_tour_date_disputed,
        resolved.is_total_disputed,
        case when resolved.total_price < 0 then resolved.total_price end as negative_total
    from resolved
    left join held on resolved.booking_key = held.booking_key
    left join held_states on resolved.booking_key = held_states.booking_key
)

select
    booking_key,
    channel_code,
    external_booking_ref,
    fill_only,
    source_enum_compat,
    booking_created_at,
    booking_date,
    tour_date,
    tour_time,
    currency_code,
    number_of_adult,
    number_of_child,
    customer_payment_status,
    ops_fulfillment_status,
    package_ref_type,
    package_ref_key,
    legacy_package_id,
    note,
    items_booking_id,
    state_driver_id,
    state_assigned_at,
    state_updated_from_source,
    assigned_driver_id,
    assigned_at,
    bstadmin_booking_id,
    bstadmin_updated_at,
    bstadmin_status as stored_fulfillment_status,
    candidates,
    winner_system,
    winner_table,
    winner_pk,
    winner_updated_at,
    is_cancel_disputed,
    is_tour_date_disputed,
    is_total_disputed,
    negative_total,
    total_price::numeric(12, 2) as total_price,
    coalesce(items_adult_qty, number_of_adult) as party_adult_qty,
    coalesce(items_child_qty, number_of_child) as party_child_qty,
    coalesce(items_infant_qty, 0) as party_infant_qty,
    coalesce(held_state_status, ops_fulfillment_status) as state_fulfillment_status,
    coalesce(held_is_paid_flag, customer_payment_status = 'PAID') as state_is_paid_flag,
    -- only when the flag is set (mapping 4.11)
    coalesce(
        held_paid_at,
        case when coalesce(held_is_paid_flag, customer_payment_status = 'PAID') then resolved_paid_at end
    ) as state_paid_at,
    (bstadmin_booking_id is not null and bstadmin_status is distinct from computed_fulfillment_status)
        as is_fulfillment_drift,
    coalesce(kept_paid, false) as kept_paid
from filled
