-- Required query: bridge rows with a value that none of their source rows has, where the rules only choose among these.
-- Which of them they choose is held by their unit tests and the oracle; nothing of the mapping is repeated here.
-- Letter by letter first: the rulebook is asked about the few that differ.
{{ config(twin='kept') }}

with stated as (
    select
        links.booking_key,
        landed.main_contact_name as name,
        landed.main_contact_email as email,
        landed.phone_number as phone,
        landed.created_at,
        null::integer as driver_id,
        false as may_have_driver,
        null::timestamp as driver_since
    from {{ ref('recon_booking_links') }} as links
    inner join {{ source('balisnap', 'Booking') }} as landed on links.booking_id = landed.booking_id
    where links.source_system = 'balisnap'

    union all

    select
        links.booking_key,
        landed.main_contact_name as name,
        landed.main_contact_email as email,
        landed.phone_number as phone,
        landed.created_at,
        landed.assigned_driver_id as driver_id,
        true as may_have_driver,
        coalesce(case when isfinite(landed.assigned_at) then landed.assigned_at end, landed.updated_at) as driver_since
    from {{ ref('recon_booking_links') }} as links
    inner join {{ source('bstadmin', 'bookings') }} as landed on links.booking_id = landed.booking_id
    where links.source_system = 'bstadmin'
),

compared as (
    select
        stated.booking_key,
        bool_or(
            case
                when stated.name = contacts.main_name then true
                else left({{ function('norm_text') }}(stated.name), 191) = contacts.main_name
            end
        ) as has_its_name,
        bool_or(
            case
                when stated.email = contacts.main_email then true
                else left({{ function('norm_text') }}(stated.email), 191) = contacts.main_email
            end
        ) as has_its_email,
        bool_or(
            case
                -- the national number is the same however it was written
                when right(stated.phone, 8) = right(contacts.phone, 8) then true
                else left({{ function('norm_phone') }}(stated.phone), 64) = contacts.phone
            end
        ) as has_its_phone,
        min({{ function('utc_instant') }}(stated.created_at)) = min(cores.booking_created_at) as has_its_time,
        -- the best-ranked one's driver: none, where one of them has none
        bool_or(stated.driver_id = states.assigned_driver_id)
        or (
            min(states.assigned_driver_id) is null
            and bool_and(stated.driver_id is not null and stated.may_have_driver) is not true
        ) as has_its_driver
    from stated
    inner join {{ source('bridge', 'booking_core') }} as cores on stated.booking_key = cores.booking_key
    left join {{ source('bridge', 'booking_contact') }} as contacts on stated.booking_key = contacts.booking_key
    left join {{ source('bridge', 'ops_booking_state') }} as states on stated.booking_key = states.booking_key
    left join {{ ref('recon_fresher_bookings') }} as fresher on stated.booking_key = fresher.booking_key
    where fresher.booking_key is null
    group by stated.booking_key
),

differing as materialized (
    select * from compared
    where not (
        coalesce(has_its_name, false) and coalesce(has_its_email, false) and coalesce(has_its_phone, false)
        and coalesce(has_its_time, false) and coalesce(has_its_driver, false)
    )
),

-- what the bridge holds may stay where no source has a real one any more (mapping 4.6)
placeholders as materialized (
    select
        {{ function('placeholders') }}('name') as name_list,
        {{ function('placeholders') }}('email') as email_list
),

real_ones as (
    select
        stated.booking_key,
        bool_or(not {{ function('is_placeholder_name') }}(stated.name, placeholders.name_list)) as has_name,
        bool_or(
            {{ function('is_email') }}({{ function('norm_text') }}(stated.email))
            and not {{ function('is_placeholder_email') }}(stated.email, placeholders.email_list)
        ) as has_email,
        bool_or({{ function('norm_phone') }}(stated.phone) is not null) as has_phone
    from stated
    inner join differing on stated.booking_key = differing.booking_key
    cross join placeholders
    group by stated.booking_key
),

judged as (
    select
        differing.booking_key,
        v.status
    from differing
    inner join real_ones on differing.booking_key = real_ones.booking_key
    cross join
        lateral (
            values
            ('NAME_DIFFERS', real_ones.has_name and differing.has_its_name is not true),
            ('EMAIL_DIFFERS', real_ones.has_email and differing.has_its_email is not true),
            ('PHONE_DIFFERS', real_ones.has_phone and differing.has_its_phone is not true),
            ('CREATED_DIFFERS', differing.has_its_time is not true),
            ('DRIVER_DIFFERS', differing.has_its_driver is not true)
        ) as v (status, is_so)
    where v.is_so
),

-- two places of the bridge that say the same; an assignment without a possible time is reviewed instead
drivers as (
    select
        coalesce(states.booking_key, active.booking_key) as booking_key,
        states.assigned_driver_id,
        active.driver_id
    from (
        select
            booking_key,
            assigned_driver_id
        from {{ source('bridge', 'ops_booking_state') }}
        where assigned_driver_id is not null
    ) as states
    full join (
        select
            booking_key,
            driver_id
        from {{ source('bridge', 'ops_assignment') }}
        where is_active
    ) as active
        on states.booking_key = active.booking_key
    where states.assigned_driver_id is distinct from active.driver_id
),

assignments as (
    select drivers.booking_key
    from drivers
    left join stated
        on
            drivers.driver_id is null
            and drivers.booking_key = stated.booking_key
            and drivers.assigned_driver_id = stated.driver_id
    group by drivers.booking_key
    having
        min(drivers.driver_id) is not null
        or bool_and({{ function('is_bridgeable_date') }}(stated.driver_since::date))
),

items as (
    select
        booking_key,
        sum(adult_qty) as adult_qty,
        sum(child_qty) as child_qty,
        sum(infant_qty) as infant_qty
    from {{ source('bridge', 'booking_item_snapshot') }}
    group by booking_key
),

parties as (
    select parties.booking_key
    from {{ source('bridge', 'booking_party') }} as parties
    inner join items on parties.booking_key = items.booking_key
    where
        (parties.adult_qty, parties.child_qty, parties.infant_qty)
        is distinct from (items.adult_qty, items.child_qty, items.infant_qty)
)

select
    'D' as batch,
    'booking' as entity,
    judged.booking_key as key,
    judged.status,
    null::jsonb as detail
from judged

union all

select
    'D' as batch,
    'booking' as entity,
    disagreeing.booking_key as key,
    disagreeing.status,
    null as detail
from (
    select
        booking_key,
        'ASSIGNMENT_DIFFERS' as status
    from assignments

    union all

    select
        booking_key,
        'PARTY_DIFFERS' as status
    from parties
) as disagreeing
left join {{ ref('recon_fresher_bookings') }} as fresher on disagreeing.booking_key = fresher.booking_key
where fresher.booking_key is null

union all

select
    'C' as batch,
    'product' as entity,
    products.product_key as key,
    case when products.is_active = landed.is_active then 'NAME_DIFFERS' else 'ACTIVE_DIFFERS' end as status,
    jsonb_build_object('source_row', landed.product_id) as detail
from {{ source('balisnap', 'TourProduct') }} as landed
inner join {{ source('bridge', 'catalog_product') }} as products
    on {{ function('row_key') }}('product', 'balisnap', 'TourProduct', landed.product_id::text) = products.product_key
where
    products.is_active is distinct from landed.is_active
    or products.name is distinct from left(
        coalesce({{ function('norm_text') }}(landed.product_name), {{ function('norm_slug') }}(landed.slug)), 255
    )

union all

select
    'C' as batch,
    'variant' as entity,
    variants.variant_key as key,
    case when variants.is_active = landed.is_active then 'NAME_DIFFERS' else 'ACTIVE_DIFFERS' end as status,
    jsonb_build_object('source_row', landed.variant_id) as detail
from {{ source('balisnap', 'TourVariant') }} as landed
inner join {{ source('bridge', 'catalog_variant') }} as variants
    on {{ function('row_key') }}('variant', 'balisnap', 'TourVariant', landed.variant_id::text) = variants.variant_key
where
    variants.is_active is distinct from landed.is_active
    or (
        {{ function('norm_text') }}(landed.variant_name) is not null
        and variants.name is distinct from left({{ function('norm_text') }}(landed.variant_name), 255)
    )
