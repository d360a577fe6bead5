{{ config(table='unmapped_queue', key='queue_key', range_by='queue_key') }}

with wanted as (
    select * from {{ ref('int_booking_reviews') }}
),

-- Review rows of payments and finance are batch E's.
existing as (
    select * from {{ source('bridge', 'unmapped_queue') }}
    where
        queue_type = 'BOOKING_REVIEW'
        and source_system in ('balisnap', 'bstadmin', 'canonical')
        and source_table in ('Booking', 'bookings', 'BookingItem', 'booking_identity')
        and {{ touched_subject() }}
),

final as (
    {{ queue_lifecycle('wanted', 'existing') | indent(4) }}
)

select * from final
