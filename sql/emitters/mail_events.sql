-- The events that documents of mail.sql make, in their order: read by the rulebook, and placed in the log.
-- What a mail leaves out (a cancellation seldom says how many would have come) is what the bridge holds of its booking.
with documents as materialized (
    select
        d.place,
        d.document ->> 'id' as id,
        d.document ->> 'messageId' as message_id,
        d.document ->> 'source' as source,
        d.document -> 'parsed' as parsed,
        rulebook.booking_channel(d.document ->> 'source') as channel,
        d.document -> 'bookings' as bookings,
        rulebook.norm_ref(d.document -> 'parsed' ->> 'bookingRef') as own_ref,
        rulebook.utc_instant((d.document ->> 'receivedAt')::timestamp) as received_at,
        case upper(coalesce(d.document -> 'parsed' ->> 'status', d.document ->> 'relation'))
            when 'CREATED' then 'CREATED'
            when 'NEW' then 'CREATED'
            when 'UPDATED' then 'UPDATED'
            when 'CANCELLED' then 'CANCELLED'
        end as event_type
    from jsonb_array_elements($1::jsonb) with ordinality as d (document, place)
),

-- The ref under which the bridge has its booking: the mail's own, unless bstadmin holds the booking under another one
-- (made up, or corrected) and nobody has the mail's.
identified as (
    select
        documents.*,
        coalesce(held.external_booking_ref, documents.own_ref) as ref
    from documents
    left join lateral (
        select min(c.external_booking_ref) as external_booking_ref
        from jsonb_array_elements_text(documents.bookings) as b (booking_id)
        inner join public.channel_external_refs as r
            on
                r.entity_type = 'BOOKING'
                and documents.channel = r.channel_code
                and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'
                and b.booking_id = r.external_ref
        inner join public.booking_core as c on r.entity_key = c.booking_key
        where
            not exists (
                select 1 from public.booking_core as x
                where x.channel_code = documents.channel and x.external_booking_ref = documents.own_ref
            )
        having count(distinct c.booking_key) = 1
    ) as held on true
),

texts as (
    select
        identified.*,
        core.booking_key is not null as is_bridged,
        core.tour_date as held_tour_date,
        core.number_of_adult as held_adult,
        core.number_of_child as held_child,
        core.currency_code as held_currency,
        core.total_price as held_total,
        phase2.mail_day(identified.parsed ->> 'tourDate') as tour_date,
        substring(identified.parsed ->> 'numberOfAdult' from '^[0-9]{1,9}$')::integer as adult,
        substring(identified.parsed ->> 'numberOfChild' from '^[0-9]{1,9}$')::integer as child,
        substring(identified.parsed ->> 'totalPrice' from '^[0-9]{1,18}(?:[.][0-9]{1,18})?$')::numeric as total
    from identified
    left join public.booking_core as core
        on identified.channel = core.channel_code and identified.ref = core.external_booking_ref
),

facts as (
    select
        texts.*,
        concat_ws(
            ', ',
            case when jsonb_typeof(texts.parsed) <> 'object' then 'parsed_data: no object' end,
            case when texts.received_at is null then 'received_at: no time' end,
            case when texts.ref is null then 'bookingRef: none' end,
            case when texts.event_type is null then 'status: no type of event' end,
            case
                when texts.tour_date is null and (texts.parsed ->> 'tourDate' <> '' or not texts.is_bridged)
                    then 'tourDate: no day'
            end,
            case
                when texts.adult is null and (texts.parsed ->> 'numberOfAdult' <> '' or not texts.is_bridged)
                    then 'numberOfAdult: no number'
            end,
            case
                when texts.child is null and texts.parsed ->> 'numberOfChild' <> '' then 'numberOfChild: no number'
            end,
            case when texts.total is null and texts.parsed ->> 'totalPrice' <> '' then 'totalPrice: no amount' end
        ) as problem,
        -- a key is a header's text, of at most 128 characters
        case
            when texts.message_id ~ '^[!-~]{1,128}$' then texts.message_id
            else 'mail:' || encode(sha256(convert_to(texts.message_id, 'UTF8')), 'hex')
        end as key
    from texts
)

select
    'email_inbox' as source_table,
    facts.id as source_pk,
    facts.channel,
    facts.ref,
    nullif(facts.problem, '') as problem,
    -- refused as it is, some time before
    placed.is_known or coalesce(refused.payload ->> 'key' = placed.idempotency_key, false) as is_known,
    placed.idempotency_key as key,
    jsonb_build_object(
        'payloadVersion', 'v1',
        'eventType', facts.event_type,
        'eventTime', to_char(placed.at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'source', facts.source,
        'externalBookingRef', facts.ref,
        'customer', jsonb_build_object(
            'name', facts.parsed ->> 'customerName',
            'email', facts.parsed ->> 'customerEmail',
            'phone', facts.parsed ->> 'customerPhone'
        ),
        'booking', jsonb_build_object(
            'tourDate', coalesce(facts.tour_date, facts.held_tour_date)::text,
            'tourTime', facts.parsed ->> 'tourTime',
            'adult', coalesce(facts.adult, facts.held_adult),
            'child', coalesce(facts.child, case when facts.adult is null then facts.held_child end, 0),
            'currency', coalesce(facts.parsed ->> 'currency', facts.held_currency, ''),
            'totalPrice', coalesce(facts.total, facts.held_total, 0),
            'pickupLocation', facts.parsed ->> 'pickupLocation',
            'meetingPoint', facts.parsed ->> 'meetingPoint',
            'note', facts.parsed ->> 'note'
        ),
        'raw', jsonb_build_object(
            'providerPayload', jsonb_build_object(
                'system', 'bstadmin', 'table', 'email_inbox', 'id', facts.id, 'messageId', facts.message_id,
                'parsed', facts.parsed
            )
        )
    )::text as event
from facts
cross join
    lateral phase2.place_event(
        facts.source, facts.ref, facts.event_type, facts.received_at, facts.key, null
    ) as placed
left join public.unmapped_queue as refused
    on
        rulebook.queue_key('BOOKING_REVIEW', 'ingest', 'email_inbox', facts.id, 'INVALID_SOURCE')
        = refused.queue_key
order by facts.place
