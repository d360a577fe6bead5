-- The driver of a booking as the history of assignments has it; the booking's own state says when.
select
    bookings.id,
    bookings.booking_key,
    bookings.ops_id,
    bookings.channel,
    bookings.reference,
    bookings.created_at,
    bookings.tour_date,
    bookings.tour_time,
    bookings.adults,
    bookings.children,
    bookings.pickup_location,
    bookings.status,
    assignments.driver_id,
    assignments.partner_id,
    bookings.assigned_at
from {{ ref('ops_bookings') }} as bookings
left join {{ source('bridge', 'ops_assignment') }} as assignments
    on bookings.booking_key = assignments.booking_key and assignments.is_active
