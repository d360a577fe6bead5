with candidates as (
    select
        booking_key,
        fill_only,
        source_system,
        booking_id,
        candidates,
        candidate_rank,
        updated_at
    from {{ ref('int_booking_candidates') }}
),

-- Materialized, or the lists would be read anew for every row.
placeholders as materialized (
    select
        {{ function('placeholders') }}('name') as name_list,
        {{ function('placeholders') }}('email') as email_list
),

-- Only bstadmin has pickups; balisnap's meeting point stands in where there is none (mapping 4.6).
stated as (
    select
        candidates.*,
        bookings.main_name,
        bookings.main_email,
        bookings.phone,
        null::text as pickup_location,
        bookings.meeting_point as pickup_stand_in,
        bookings.meeting_point
    from candidates
    inner join {{ ref('stg_balisnap__bookings') }} as bookings on candidates.booking_id = bookings.booking_id
    where candidates.source_system = 'balisnap'
    union all
    select
        candidates.*,
        bookings.main_name,
        bookings.main_email,
        bookings.phone,
        bookings.pickup_location,
        null::text as pickup_stand_in,
        bookings.meeting_point
    from candidates
    inner join {{ ref('stg_bstadmin__bookings') }} as bookings on candidates.booking_id = bookings.booking_id
    where candidates.source_system = 'bstadmin'
),

-- Kinds, the best first: a real value; for e-mails an invalid but real one; a placeholder's text.
-- `offset 0` and `materialized` keep the planner from computing a normalised text anew wherever it is named.
judged as materialized (
    select
        stated.*,
        case when {{ function('is_placeholder_name') }}(stated.main_name, placeholders.name_list) then 3 else 1 end
            as name_kind,
        case
            when {{ function('is_placeholder_email') }}(stated.main_email, placeholders.email_list) then 3
            when {{ function('is_email') }}(stated.main_email) then 1
            else 2
        end as email_kind
    from (select * from stated offset 0) as stated -- noqa: AM09
    cross join placeholders
),

alone as (
    select
        booking_key,
        fill_only,
        main_name,
        name_kind,
        main_email,
        email_kind,
        phone,
        coalesce(pickup_location, pickup_stand_in) as pickup_location,
        meeting_point,
        source_system as updated_from_source
    from judged
    where candidates = 1
),

-- Field by field: the best kind, of that the latest change, ties by rank.
merged as (
    select
        booking_key,
        fill_only,
        (
            array_agg(main_name order by name_kind asc, updated_at desc nulls last, candidate_rank asc)
            filter (where main_name is not null)
        )[1] as main_name,
        min(name_kind) as name_kind,
        (
            array_agg(main_email order by email_kind asc, updated_at desc nulls last, candidate_rank asc)
            filter (where main_email is not null)
        )[1] as main_email,
        min(email_kind) as email_kind,
        (
            array_agg(phone order by updated_at desc nulls last, candidate_rank asc)
            filter (where phone is not null)
        )[1] as phone,
        coalesce(
            (
                array_agg(pickup_location order by updated_at desc nulls last, candidate_rank asc)
                filter (where pickup_location is not null)
            )[1],
            (
                array_agg(pickup_stand_in order by updated_at desc nulls last, candidate_rank asc)
                filter (where pickup_stand_in is not null)
            )[1]
        ) as pickup_location,
        (
            array_agg(meeting_point order by updated_at desc nulls last, candidate_rank asc)
            filter (where meeting_point is not null)
        )[1] as meeting_point,
        max(source_system) filter (where candidate_rank = 1) as updated_from_source
    from judged
    where candidates > 1
    group by booking_key, fill_only
),

-- The bridge's contact is asked for only where it may stay.
chosen as (
    select
        *,
        case when fill_only or name_kind > 1 or email_kind > 1 then booking_key end as held_key
    from alone
    union all
    select
        *,
        case when fill_only or name_kind > 1 or email_kind > 1 then booking_key end as held_key
    from merged
),

-- What the bridge holds, only where it may stay: a placeholder never overwrites a valid contact (mapping 4.6), and a
-- booking that is newer in the bridge keeps all but its nulls (4.13).
held as (
    select
        chosen.*,
        contacts.main_name as held_name,
        contacts.is_placeholder_name as held_name_is_placeholder,
        contacts.main_email as held_email,
        contacts.is_placeholder_email as held_email_is_placeholder,
        contacts.phone as held_phone,
        contacts.pickup_location as held_pickup_location,
        contacts.meeting_point as held_meeting_point,
        contacts.updated_from_source as held_updated_from_source,
        contacts.booking_key is not null as is_held
    from chosen
    left join {{ source('bridge', 'booking_contact') }} as contacts on chosen.held_key = contacts.booking_key
),

decided as (
    select
        *,
        is_held and case
            when fill_only then held_name is not null or main_name is null
            else name_kind > 1 and held_name is not null and not held_name_is_placeholder
        end as keeps_name,
        is_held and case
            when fill_only then held_email is not null or main_email is null
            else email_kind > 1 and held_email is not null and not held_email_is_placeholder
        end as keeps_email,
        is_held and fill_only as only_fills
    from held
)

select
    booking_key,
    case when keeps_name then held_name else left(main_name, 191) end as main_name,
    case when keeps_email then held_email else left(main_email, 191) end as main_email,
    case when only_fills then coalesce(held_phone, left(phone, 64)) else left(phone, 64) end as phone,
    case when only_fills then coalesce(held_pickup_location, pickup_location) else pickup_location end
        as pickup_location,
    case when only_fills then coalesce(held_meeting_point, meeting_point) else meeting_point end as meeting_point,
    case when keeps_name then held_name_is_placeholder else name_kind > 1 end as is_placeholder_name,
    case when keeps_email then held_email_is_placeholder else email_kind > 1 end as is_placeholder_email,
    case
        when only_fills then coalesce(held_updated_from_source, updated_from_source) else updated_from_source
    end as updated_from_source,
    -- the whole text of what did not fit, for its review row
    case when length(main_name) > 191 then main_name end as long_name,
    case when length(main_email) > 191 then main_email end as long_email,
    case when length(phone) > 64 then phone end as long_phone
from decided
