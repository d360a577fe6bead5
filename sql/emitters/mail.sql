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
        'relation', (
            select max(e.relation_type) from public.booking_emails as e
            where e.email_id = m.id
        )
    )::text as document
from public.email_inbox as m
where m.is_booking_email and m.parsed_data is not null and m.created_at >= $1 and isfinite(m.created_at)
order by changed_at, m.id
