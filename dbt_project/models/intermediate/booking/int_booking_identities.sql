with candidates as (
    select * from {{ ref('int_booking_sources') }}
    where is_candidate
),

winners as (
    select * from candidates
    where candidate_rank = 1
),

-- A few touched bookings are looked up; all of them are read once.
bridged as {{ 'not materialized' if var('follows', false) else 'materialized' }} (
    select
        booking_key,
        channel_code,
        external_booking_ref
    from {{ source('bridge', 'booking_core') }}
),

-- By identity: its key stays, whoever made it.
known as (
    select
        winners.*,
        bridged.booking_key as known_key,
        -- as a column of its own: the planner would take `known_key is null` for a rare case, which a first run is not
        bridged.booking_key is null as is_newcomer
    from winners
    left join bridged
        on
            winners.channel_code = bridged.channel_code
            and winners.external_booking_ref = bridged.external_booking_ref
),

-- Else by source id: a corrected ref is no new booking, unless another candidate holds the old identity.
unheld as (
    select
        refs.external_ref_kind,
        refs.external_ref,
        refs.entity_key as booking_key
    from {{ source('bridge', 'channel_external_refs') }} as refs
    inner join bridged on refs.entity_key = bridged.booking_key
    where
        refs.entity_type = 'BOOKING'
        and refs.external_ref_kind in ('BALISNAP_BOOKING_ID', 'BSTADMIN_BOOKING_ID')
        and (select bool_or(known.is_newcomer) from known) -- else nobody asks, and nothing is read
        and not exists (
            select 1 from winners
            where
                winners.channel_code = bridged.channel_code
                and winners.external_booking_ref = bridged.external_booking_ref
        )
),

former as (
    select distinct on (known.channel_code, known.external_booking_ref)
        known.channel_code,
        known.external_booking_ref,
        unheld.booking_key as former_key
    from known
    inner join candidates
        on
            known.channel_code = candidates.channel_code
            and known.external_booking_ref = candidates.external_booking_ref
    inner join unheld
        on
            candidates.source_pk = unheld.external_ref
            and case candidates.source_system
                when 'balisnap' then 'BALISNAP_BOOKING_ID' else 'BSTADMIN_BOOKING_ID'
            end = unheld.external_ref_kind
    where known.is_newcomer
    order by known.channel_code, known.external_booking_ref, candidates.candidate_rank, unheld.booking_key
),

-- Several new identities may claim one old booking: the first of them by name has it.
claimed as (
    select distinct on (former_key)
        former_key,
        channel_code,
        external_booking_ref
    from former
    order by former_key, channel_code collate "C", external_booking_ref collate "C"
),

named as (
    select
        known.*,
        claimed.former_key,
        case
            when known.known_key is null and claimed.former_key is null
                then {{ function('booking_key') }}(known.channel_code, known.external_booking_ref)
        end as made_key
    from known
    left join claimed
        on
            known.channel_code = claimed.channel_code
            and known.external_booking_ref = claimed.external_booking_ref
),

-- A renamed booking keeps the key made of its old name; who comes with that name later gets one of `:again`.
retaken as (
    select
        named.made_key,
        named.channel_code,
        named.external_booking_ref
    from named
    inner join bridged on named.made_key = bridged.booking_key
),

remade as (
    select distinct on (retaken.made_key)
        retaken.made_key,
        made.booking_key
    from retaken
    cross join
        lateral (
            select
                tries.n,
                {{ function('named_key') }}(
                    'booking',
                    'canonical:booking_identity:' || retaken.channel_code || ':' || retaken.external_booking_ref
                    || repeat(':again', tries.n)
                ) as booking_key
            from generate_series(1, 100) as tries (n)
        ) as made
    left join bridged on made.booking_key = bridged.booking_key
    where bridged.booking_key is null
    order by retaken.made_key, made.n
),

keyed as (
    select
        named.*,
        coalesce(named.known_key, named.former_key, remade.booking_key, named.made_key) as booking_key
    from named
    left join remade on named.made_key = remade.made_key
)

select
    keyed.booking_key,
    keyed.channel_code,
    keyed.external_booking_ref,
    keyed.candidates,
    keyed.latest_updated_at,
    keyed.known_key is null and keyed.former_key is null as is_new,
    keyed.former_key is not null as is_renamed,
    -- Newer in the bridge than in the sources: a backfill fills only what is null (mapping 4.13).
    coalesce(
        keyed.made_key is null
        and greatest(freshness.last_event_time, freshness.last_core_write_at)
        > coalesce(keyed.latest_updated_at, '-infinity'::timestamptz),
        false
    ) as fill_only
from keyed
left join {{ source('phase2', 'booking_freshness') }} as freshness on keyed.booking_key = freshness.booking_key
