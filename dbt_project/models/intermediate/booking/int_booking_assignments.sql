{{ config(materialized='view') }} -- one model reads it, once
with cores as (
    select
        booking_key,
        fill_only,
        bstadmin_booking_id,
        assigned_driver_id,
        coalesce(assigned_at, bstadmin_updated_at) as assigned_at,
        -- who speaks of the driver: bstadmin; where none of its bookings is left, the winner
        coalesce(bstadmin_updated_at, winner_updated_at, booking_created_at) as changed_at
    from {{ ref('int_booking_cores') }}
),

held as (
    select * from {{ source('bridge', 'ops_assignment') }}
),

-- An assignment without a possible time is not bridged but reviewed (mapping 1, values that do not fit).
dated as (
    select
        cores.*,
        {{ function('named_key') }}(
            'booking',
            'bstadmin:bookings:' || cores.bstadmin_booking_id::text || ':assignment:' || cores.assigned_driver_id::text
        ) as assignment_key
    from cores
    where
        cores.assigned_driver_id is not null
        and {{ function('is_bridgeable_date') }}((cores.assigned_at at time zone 'UTC')::date)
),

-- A driver who comes back has the key of the row that was closed: the same row, open again.
wanted as (
    select
        dated.assignment_key,
        dated.booking_key,
        dated.assigned_driver_id as driver_id,
        'BSTADMIN'::text as assignment_source,
        dated.assigned_at,
        null::timestamptz as unassigned_at,
        true as is_active
    from dated
    where
        not dated.fill_only
        or not exists (
            select 1 from held
            where held.booking_key = dated.booking_key
        )
),

-- Any other active row of the booking is closed, when the sources are the newer side (mapping 4.11, 4.13).
closed as (
    select
        held.assignment_key,
        held.booking_key,
        held.driver_id,
        held.assignment_source,
        held.assigned_at,
        cores.changed_at as unassigned_at,
        false as is_active
    from held
    inner join cores on held.booking_key = cores.booking_key
    left join wanted on held.assignment_key = wanted.assignment_key
    where held.is_active and not cores.fill_only and wanted.assignment_key is null
)

select * from wanted
union all
select * from closed
