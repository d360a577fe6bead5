with sources as (
    select
        *,
        'a made-up ref that someone else really has' as dispute
    from {{ ref('int_booking_sources') }}
    where not is_candidate or is_ref_disputed
),

candidates as (
    select * from {{ ref('int_booking_candidates') }}
),

cores as (
    select
        *,
        channel_code || ':' || external_booking_ref as identity_name
    from {{ ref('int_booking_cores') }}
),

-- Not bridged at all, so queued with what the source says (mapping 1, values that do not fit).
refused as (
    select
        sources.source_system,
        sources.source_table,
        sources.source_pk,
        sources.channel_code,
        'INVALID_SOURCE' as reason_code,
        problems.field,
        problems.problem,
        to_jsonb(problems.raw_value) as raw_value
    from sources
    left join {{ ref('stg_balisnap__bookings') }} as web
        on sources.source_system = 'balisnap' and sources.booking_id = web.booking_id
    left join {{ ref('stg_bstadmin__bookings') }} as ops
        on sources.source_system = 'bstadmin' and sources.booking_id = ops.booking_id
    cross join
        lateral (
            values
            (
                sources.has_long_ref, 'booking_ref', 'ref is longer than 128 characters: not bridged',
                coalesce(web.booking_ref, ops.booking_ref)
            ),
            (
                sources.lacks_travel_date,
                case sources.source_system when 'balisnap' then 'booking_date' else 'tour_date' end,
                'travel date is missing or outside 1900 to 2199: not bridged',
                coalesce(web.raw_booking_date, ops.raw_tour_date)::text
            ),
            (
                sources.lacks_created_at, 'created_at', 'created_at is missing or outside 1900 to 2199: not bridged',
                coalesce(web.raw_created_at, ops.raw_created_at)::text
            )
        ) as problems (is_found, field, problem, raw_value)
    where not sources.is_candidate and problems.is_found
),

-- Bridged, with a value made to fit.
doubtful as (
    select
        candidates.source_system,
        candidates.source_table,
        candidates.source_pk,
        candidates.channel_code,
        problems.reason_code,
        problems.field,
        problems.problem,
        to_jsonb(problems.raw_value) as raw_value
    from candidates
    cross join
        lateral (
            values
            (
                candidates.bad_currency is not null, 'INVALID_SOURCE', 'currency',
                'no currency code, taken as USD', candidates.bad_currency
            ),
            (
                candidates.bad_total is not null, 'INVALID_SOURCE', 'total_price',
                'no amount that fits, taken as 0', candidates.bad_total
            ),
            (
                candidates.has_mixed_currency, 'MULTI_MATCH', 'currency',
                'items are not all in the booking''s currency, so its own total counts', candidates.currency_code
            )
        ) as problems (is_found, reason_code, field, problem, raw_value)
    where
        (candidates.bad_currency is not null or candidates.bad_total is not null or candidates.has_mixed_currency)
        and problems.is_found
),

negative as (
    select
        winner_system as source_system,
        winner_table as source_table,
        winner_pk as source_pk,
        channel_code,
        'INVALID_SOURCE' as reason_code,
        'total_price' as field,
        'total is below 0, taken as 0' as problem,
        to_jsonb(negative_total::text) as raw_value
    from cores
    where negative_total is not null
),

undated as (
    select
        'bstadmin' as source_system,
        'bookings' as source_table,
        bstadmin_booking_id::text as source_pk,
        channel_code,
        'INVALID_SOURCE' as reason_code,
        'assigned_at' as field,
        'assignment time is missing or outside 1900 to 2199: assignment not bridged' as problem,
        to_jsonb((coalesce(assigned_at, bstadmin_updated_at) at time zone 'UTC')::text) as raw_value
    from cores
    where
        assigned_driver_id is not null
        and not {{ function('is_bridgeable_date') }}(
            (coalesce(assigned_at, bstadmin_updated_at) at time zone 'UTC')::date
        )
),

-- A contact that was cut: the row is that of the candidate who supplied it, the latest with that very text.
long_contacts as (
    select
        booking_key,
        long_name,
        long_email,
        long_phone
    from {{ ref('int_booking_contacts') }}
    where long_name is not null or long_email is not null or long_phone is not null
),

-- Inner joins, so that the texts are normalised of these few bookings only.
stated as (
    select
        candidates.*,
        long_contacts.long_name,
        long_contacts.long_email,
        long_contacts.long_phone,
        web.main_name,
        web.main_email,
        web.phone
    from long_contacts
    inner join candidates on long_contacts.booking_key = candidates.booking_key
    inner join {{ ref('stg_balisnap__bookings') }} as web on candidates.booking_id = web.booking_id
    where candidates.source_system = 'balisnap'
    union all
    select
        candidates.*,
        long_contacts.long_name,
        long_contacts.long_email,
        long_contacts.long_phone,
        ops.main_name,
        ops.main_email,
        ops.phone
    from long_contacts
    inner join candidates on long_contacts.booking_key = candidates.booking_key
    inner join {{ ref('stg_bstadmin__bookings') }} as ops on candidates.booking_id = ops.booking_id
    where candidates.source_system = 'bstadmin'
),

cut as (
    select distinct on (stated.booking_key, problems.field)
        stated.source_system,
        stated.source_table,
        stated.source_pk,
        stated.channel_code,
        'INVALID_SOURCE' as reason_code,
        problems.field,
        'text is longer than its column, cut' as problem,
        to_jsonb(problems.raw_value) as raw_value
    from stated
    cross join
        lateral (
            values
            ('main_contact_name', stated.long_name, stated.main_name),
            ('main_contact_email', stated.long_email, stated.main_email),
            ('phone_number', stated.long_phone, stated.phone)
        ) as problems (field, raw_value, stated)
    where problems.raw_value = problems.stated
    order by
        stated.booking_key asc,
        problems.field asc,
        stated.updated_at desc nulls last,
        stated.candidate_rank asc
),

item_problems as (
    select
        'balisnap' as source_system,
        'BookingItem' as source_table,
        items.booking_item_id::text as source_pk,
        'DIRECT' as channel_code,
        'INVALID_SOURCE' as reason_code,
        problems.field,
        problems.problem,
        problems.raw_value
    from {{ ref('int_booking_items') }} as items
    cross join
        lateral (
            select
                'currency_code' as field,
                'no currency code, taken as USD' as problem,
                to_jsonb(items.bad_currency) as raw_value
            where items.bad_currency is not null
            union all
            select
                amounts.key as field,
                'no amount that fits or a total below 0, taken as 0' as problem,
                amounts.value as raw_value
            from jsonb_each(items.bad_amounts) as amounts
        ) as problems
    where items.bad_currency is not null or items.bad_amounts is not null
),

-- About the identity: what its candidates contradict each other in, with everybody's word.
words as (
    select
        booking_key,
        jsonb_agg(
            jsonb_build_object(
                'source', source_system || ':' || source_table || ':' || source_pk,
                'tour_date', tour_date,
                'total_price', total_price,
                'currency', currency_code,
                'status', coalesce(status_v2, status)
            )
            order by candidate_rank
        ) as raw_value
    from candidates
    where
        booking_key in (
            select cores.booking_key from cores
            where cores.is_tour_date_disputed or cores.is_total_disputed or cores.is_cancel_disputed
        )
    group by booking_key
),

contradicted as (
    select
        'canonical' as source_system,
        'booking_identity' as source_table,
        cores.identity_name as source_pk,
        cores.channel_code,
        'MULTI_MATCH' as reason_code,
        problems.field,
        problems.problem,
        coalesce(words.raw_value, problems.raw_value) as raw_value
    from cores
    left join words on cores.booking_key = words.booking_key
    cross join
        lateral (
            values
            (cores.is_tour_date_disputed, 'tour_date', 'candidates have different tour dates', null::jsonb),
            (cores.is_total_disputed, 'total_price', 'candidates have different totals in one currency', null),
            (cores.is_cancel_disputed, 'status', 'cancelled or refunded in balisnap, not in bstadmin', null),
            (
                cores.kept_paid, 'customer_payment_status',
                'a source would take PAID back without a reversal, kept PAID', '"PAID"'::jsonb
            )
        ) as problems (is_found, field, problem, raw_value)
    where
        (cores.is_tour_date_disputed or cores.is_total_disputed or cores.is_cancel_disputed or cores.kept_paid)
        and problems.is_found
),

disputed_refs as (
    select
        'canonical' as source_system,
        'booking_identity' as source_table,
        channel_code || ':' || external_booking_ref as source_pk,
        channel_code,
        'MULTI_MATCH' as reason_code,
        'booking_ref' as field,
        dispute as problem,
        to_jsonb(source_system || ':' || source_table || ':' || source_pk) as raw_value
    from sources
    where is_candidate and is_ref_disputed
),

-- Never deleted: no source speaks of it any more, and no event ever did (mapping 2).
gone as (
    select
        'canonical' as source_system,
        'booking_identity' as source_table,
        bridged.channel_code || ':' || bridged.external_booking_ref as source_pk,
        bridged.channel_code,
        'NO_MATCH' as reason_code,
        'booking_key' as field,
        'no source has this booking any more' as problem,
        to_jsonb(bridged.booking_key) as raw_value
    from {{ source('bridge', 'booking_core') }} as bridged
    left join {{ ref('int_booking_identities') }} as identities on bridged.booking_key = identities.booking_key
    left join {{ source('phase2', 'booking_freshness') }} as freshness
        on bridged.booking_key = freshness.booking_key and freshness.last_event_time is not null
    where
        {{ touched_key('bridged.booking_key') }}
        and identities.booking_key is null
        and freshness.booking_key is null
        and not exists (
            select 1 from {{ source('bridge', 'ingest_event_log') }} as events
            where
                events.channel_code = bridged.channel_code
                and events.external_booking_ref = bridged.external_booking_ref
        )
),

problems as (
    select * from refused
    union all
    select * from doubtful
    union all
    select * from negative
    union all
    select * from undated
    union all
    select * from cut
    union all
    select * from item_problems
    union all
    select * from contradicted
    union all
    select * from disputed_refs
    union all
    select * from gone
)

select
    {{ function('queue_key') }}('BOOKING_REVIEW', source_system, source_table, source_pk, reason_code) as queue_key,
    'BOOKING_REVIEW'::text as queue_type,
    max(channel_code) as channel_code,
    source_system,
    source_table,
    left(source_pk, 128) as source_pk,
    reason_code,
    string_agg(field || ': ' || problem, '; ' order by field collate "C", problem collate "C") as reason_detail,
    jsonb_build_object(
        'problems',
        jsonb_agg(
            jsonb_build_object('field', field, 'problem', problem, 'raw', raw_value)
            order by field collate "C", problem collate "C", raw_value
        )
    ) as payload
from problems
group by source_system, source_table, source_pk, reason_code
