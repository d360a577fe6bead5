-- Grain: one event with a place of more than 1 among the rows of its secondary key (source, ref, type, event time to
-- the second, as the payload says them) or of its idempotency key. The unique keys of the log are not trusted here.
with events as (
    select
        event_key,
        channel_code,
        idempotency_key,
        created_at,
        coalesce(raw_payload ->> 'source', source_enum) as source,
        coalesce(raw_payload ->> 'externalBookingRef', external_booking_ref) as ref,
        coalesce(raw_payload ->> 'eventType', event_type) as event_type,
        date_trunc('second', event_time) as event_second
    from {{ source('bridge', 'ingest_event_log') }}
),

placed as (
    select
        event_key,
        channel_code,
        row_number() over (
            partition by source, {{ recon_norm_ref('ref') }}, event_type, event_second
            order by created_at, event_key
        ) as place_of_event,
        row_number() over (partition by idempotency_key order by created_at, event_key) as place_of_key
    from events
)

select
    event_key,
    channel_code,
    case when place_of_event > 1 then 'SAME_EVENT' else 'SAME_KEY' end as status
from placed
where place_of_event > 1 or place_of_key > 1
