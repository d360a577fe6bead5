-- Booking mails that came in and were parsed; one JSON document each, in the order in which they were written down.
select
    least(m.created_at, localtimestamp) as changed_at,
    jsonb_build_object(
        'id', m.id,
        'messageId', m.message_id,
        'receivedAt', m.received_at,
        'source', m.source,
        'parsed', m.parsed_data,
        -- what the old flow made of it
        'relation', made.relation_type,
        'bookings', coalesce(made.bookings, '[]')
    )::text as document
from public.email_inbox as m
left join lateral (
    select
        max(e.relation_type) as relation_type,
        jsonb_agg(e.booking_id order by e.booking_id) as bookings
    from public.booking_emails as e
    where e.email_id = m.id
) as made on true
where m.is_booking_email and m.parsed_data is not null and m.created_at >= $1 and isfinite(m.created_at)
order by changed_at, m.id
