-- The events that documents of web.sql make, in their order: read by the rulebook, and placed in the log.
with documents as materialized (
    select
        d.place,
        b.*,
        d.document -> 'items' as items,
        d.document -> 'payments' as payments,
        rulebook.utc_instant(b.updated_at) as changed_at
    from jsonb_array_elements($1::jsonb) with ordinality as d (document, place)
    cross join lateral jsonb_to_record(d.document -> 'booking') as b (
        booking_id integer, booking_ref text, booking_date timestamp, total_price numeric, currency_code text,
        number_of_adult integer, number_of_child integer, status text, status_v2 text, main_contact_name text,
        main_contact_email text, phone_number text, meeting_point text, note text, created_at timestamp,
        updated_at timestamp
    )
),

-- What the backfill takes from a booking's items (mapping 4.5, 4.9; int_booking_item_totals, to which a test holds it).
totals as (
    select
        documents.place,
        sum(i.total) as total,
        case
            when min(rulebook.norm_currency(i.currency)) = max(rulebook.norm_currency(i.currency))
                then min(rulebook.norm_currency(i.currency))
        end as currency,
        (
            array_agg(rulebook.utc_instant(i.starts_at) order by i.id)
            filter (where rulebook.is_bridgeable_date(rulebook.bali_date(rulebook.utc_instant(i.starts_at))))
        )[1] as starts_at
    from documents
    cross join
        lateral (
            select
                x.id,
                x.status,
                x.currency,
                x.total,
                x."startsAt" as starts_at,
                bool_and(x.status = 'CANCELLED') over () as all_cancelled
            from jsonb_to_recordset(documents.items) as x (
                id integer, status text, currency text, total numeric, "startsAt" timestamp
            )
        ) as i
    where i.all_cancelled or i.status <> 'CANCELLED'
    group by documents.place
),

-- The ref under which the backfill has it, or will have it (mapping 1, 2): its own, unless it was corrected since the
-- last backfill and nobody else holds the old one.
named as (
    select
        documents.*,
        rulebook.norm_ref(documents.booking_ref) as real_ref,
        rulebook.made_up_ref('balisnap', documents.booking_id) as made_up_ref
    from documents
),

own as (
    select
        named.*,
        case
            when named.real_ref is not null then named.real_ref
            when exists (
                -- somebody's real ref
                select 1
                from public.booking_core as c
                inner join public.channel_external_refs as r on c.booking_key = r.entity_key
                where
                    c.channel_code = 'DIRECT'
                    and c.external_booking_ref = named.made_up_ref
                    and r.entity_type = 'BOOKING'
                    and (
                        r.external_ref_kind = 'BSTADMIN_BOOKING_ID'
                        or (r.external_ref_kind = 'BALISNAP_BOOKING_ID' and r.external_ref <> named.booking_id::text)
                    )
            ) then named.made_up_ref || '-BALISNAP'
            else named.made_up_ref
        end as own_ref
    from named
),

identified as (
    select
        own.*,
        coalesce(held.external_booking_ref, own.own_ref) as ref
    from own
    left join lateral (
        select c.external_booking_ref
        from public.channel_external_refs as r
        inner join public.booking_core as c on r.entity_key = c.booking_key
        where
            r.entity_type = 'BOOKING'
            and r.channel_code = 'DIRECT'
            and r.external_ref_kind = 'BALISNAP_BOOKING_ID'
            and r.external_ref = own.booking_id::text
            and c.external_booking_ref <> own.own_ref
            and not exists (
                select 1 from public.booking_core as x
                where x.channel_code = 'DIRECT' and x.external_booking_ref = own.own_ref
            )
            and not exists (
                select 1 from public.channel_external_refs as x
                where
                    x.entity_type = 'BOOKING'
                    and x.entity_key = r.entity_key
                    and x.external_ref_kind in ('BALISNAP_BOOKING_ID', 'BSTADMIN_BOOKING_ID')
                    and (x.external_ref_kind, x.external_ref) <> (r.external_ref_kind, r.external_ref)
            )
    ) as held on true
),

facts as (
    select
        identified.place,
        identified.booking_id,
        identified.ref,
        identified.changed_at,
        case
            when
                rulebook.balisnap_says_cancelled(identified.status_v2, identified.status)
                or rulebook.balisnap_says_expired(identified.status_v2, identified.status)
                then 'CANCELLED'
            when
                identified.updated_at < identified.created_at + interval '1 second'
                and not exists (
                    select 1
                    from jsonb_to_recordset(identified.payments) as p ("updatedAt" timestamp)
                    where p."updatedAt" > identified.updated_at
                )
                then 'CREATED'
            else 'UPDATED'
        end as event_type,
        jsonb_build_object(
            'name', identified.main_contact_name,
            'email', identified.main_contact_email,
            'phone', identified.phone_number
        ) as customer,
        jsonb_build_object(
            'tourDate',
            coalesce(rulebook.bali_date(totals.starts_at), rulebook.travel_day(identified.booking_date))::text,
            -- midnight in Bali means that the time is not known
            'tourTime', nullif((totals.starts_at at time zone 'Asia/Makassar')::time, time '00:00')::text,
            'adult', rulebook.norm_count(identified.number_of_adult),
            'child', rulebook.norm_count(identified.number_of_child),
            'currency', identified.currency_code,
            'totalPrice',
            greatest(
                rulebook.norm_money(
                    case
                        when totals.currency = rulebook.norm_currency(identified.currency_code) then totals.total
                        else identified.total_price
                    end
                ),
                0
            ),
            'meetingPoint', identified.meeting_point,
            'note', identified.note
        ) as booking,
        jsonb_build_object(
            'system', 'balisnap', 'table', 'Booking', 'id', identified.booking_id, 'bookingRef',
            identified.booking_ref, 'status', identified.status, 'statusV2', identified.status_v2,
            'updatedAt', identified.updated_at, 'items', identified.items, 'payments', identified.payments
        ) as provider
    from identified
    left join totals on identified.place = totals.place
),

keyed as (
    select
        facts.*,
        'web:' || facts.booking_id || ':' || to_char(facts.changed_at, 'YYYYMMDDHH24MISSMS') || ':' as version,
        left(
            encode(
                sha256(
                    convert_to(
                        (jsonb_build_array(facts.ref, facts.customer, facts.booking, facts.provider))::text, 'UTF8'
                    )
                ),
                'hex'
            ),
            32
        ) as digest
    from facts
)

select
    'Booking' as source_table,
    keyed.booking_id::text as source_pk,
    'DIRECT' as channel,
    keyed.ref,
    case
        when keyed.changed_at is null then 'updated_at: no time'
        when keyed.booking ->> 'tourDate' is null then 'booking_date: no day'
    end as problem,
    -- refused as it is, some time before
    placed.is_known or coalesce(refused.payload ->> 'key' = placed.idempotency_key, false) as is_known,
    placed.idempotency_key as key,
    jsonb_build_object(
        'payloadVersion', 'v1',
        'eventType', keyed.event_type,
        'eventTime', to_char(placed.at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'source', 'DIRECT',
        'externalBookingRef', keyed.ref,
        'customer', keyed.customer,
        'booking', keyed.booking,
        'raw', jsonb_build_object('providerPayload', keyed.provider)
    )::text as event
from keyed
cross join
    lateral phase2.place_event(
        'DIRECT', keyed.ref, keyed.event_type, keyed.changed_at, coalesce(keyed.version || keyed.digest, ''),
        coalesce(keyed.version, '')
    ) as placed
left join public.unmapped_queue as refused
    on
        rulebook.queue_key('BOOKING_REVIEW', 'ingest', 'Booking', keyed.booking_id::text, 'INVALID_SOURCE')
        = refused.queue_key
order by keyed.place
