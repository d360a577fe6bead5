-- Every landed booking with the identity that its source gives it (mapping 1, 2, 4.1): computed here from landing and
-- the rulebook's normalisation alone, so that the bridge is held against the sources and not against itself.
{{ config(twin='part') }}

with landed as (
    select
        'balisnap' as source_system,
        'Booking' as source_table,
        booking_id,
        'DIRECT' as channel_code,
        {{ recon_norm_ref('booking_ref') }} as real_ref,
        {{ function('travel_day') }}(booking_date) as travel_day,
        created_at,
        updated_at
    from {{ source('balisnap', 'Booking') }}

    union all

    select
        'bstadmin' as source_system,
        'bookings' as source_table,
        bookings.booking_id,
        channels.channel_code,
        {{ recon_norm_ref('bookings.booking_ref') }} as real_ref,
        {{ function('bali_date') }}({{ function('utc_instant') }}(bookings.tour_date)) as travel_day,
        bookings.created_at,
        bookings.updated_at
    from {{ source('bstadmin', 'bookings') }} as bookings
    left join ({{ recon_channels() }}) as channels on bookings.source = channels.source
),

made_up as (
    select
        landed.source_system,
        landed.booking_id,
        {{ function('made_up_ref') }}(landed.source_system, landed.booking_id)
        || case when bool_or(taken.real_ref is not null) then '-' || upper(landed.source_system) else '' end as ref
    from landed
    left join landed as taken
        on
            landed.channel_code = taken.channel_code
            and {{ function('made_up_ref') }}(landed.source_system, landed.booking_id) = taken.real_ref
    where landed.real_ref is null
    group by landed.source_system, landed.booking_id
)

select
    landed.source_system,
    landed.source_table,
    landed.booking_id,
    landed.channel_code,
    coalesce(landed.real_ref, made_up.ref) as external_booking_ref,
    not{{ recon_is_unbridgeable('landed.real_ref', 'landed.travel_day', 'landed.created_at') }} as is_bridgeable,
    landed.updated_at
from landed
left join made_up
    on
        landed.source_system = made_up.source_system
        and landed.booking_id = made_up.booking_id
        and landed.real_ref is null
