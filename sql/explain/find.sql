-- Whatever a word may mean in the bridge or in the landed rows: one row a meaning. The word stands in phase2.explain,
-- of an address (`balisnap:Booking:12`) its id, with the table in phase2.explain_table.
with asked as materialized (
    select
        current_setting('phase2.explain') as word,
        rulebook.norm_ref(current_setting('phase2.explain')) as ref,
        rulebook.norm_text(current_setting('phase2.explain')) as exact,
        rulebook.match_name(current_setting('phase2.explain')) as match_name,
        lower(current_setting('phase2.explain')) as slug,
        case when current_setting('phase2.explain') ~ '^[0-9]{1,9}$' then current_setting('phase2.explain')::integer end
            as id,
        case
            when
                current_setting('phase2.explain')
                ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                then current_setting('phase2.explain')::uuid
        end as key,
        nullif(current_setting('phase2.explain_table'), '') as source_table
),

-- Arrays and not joins: so the index of each is used, whatever the planner thinks of one word.
refs as (
    select
        r.entity_type,
        r.entity_key,
        r.channel_code,
        r.external_ref_kind,
        r.external_ref,
        r.source_system,
        r.source_table,
        r.source_pk
    from public.channel_external_refs as r
    where
        r.entity_type = any(array['BOOKING', 'PRODUCT', 'VARIANT'])
        and r.channel_code = any(array(select c.channel_code from public.channel_registry as c))
        and r.external_ref_kind = any(
            array[
                'BOOKING_REF', 'BALISNAP_BOOKING_ID', 'BSTADMIN_BOOKING_ID', 'BALISNAP_PRODUCT_ID',
                'BALISNAP_VARIANT_ID', 'BSTADMIN_PACKAGE_ID', 'LEGACY_PACKAGE_ID', 'BSTADMIN_TOUR_ID'
            ]
        )
        and r.external_ref = any(array(select unnest(array[a.ref, a.word]) from asked as a))
        and (
            (select a.source_table from asked as a) is null
            or (select a.source_table || ':' || a.word from asked as a)
            = r.source_system || ':' || r.source_table || ':' || r.source_pk
        )
),

payments as (
    select
        p.payment_key,
        p.booking_key,
        case a.exact
            when p.payment_ref then 'payment ref' when p.gateway_capture_id then 'capture id'
            else 'order id'
        end as said
    from public.payment_event as p
    cross join asked as a
    where
        (
            p.payment_ref = (select asked.exact from asked)
            or p.gateway_capture_id = (select asked.exact from asked)
            or p.gateway_order_id = (select asked.exact from asked)
        )
        and a.id is null and a.key is null and a.source_table is null
),

-- Any row of a source by its id; the key of the bridge's row that is made of it, where one is. No landed table has an
-- index, so that none is read for a word that is no id, or one of another table.
landed as (
    select
        'balisnap:Payment' as source_table,
        t.payment_id as id,
        rulebook.row_key('payment', 'balisnap', 'Payment', t.payment_id::text) as key
    from landing_balisnap."Payment" as t
    where
        (select a.id from asked as a) is not null
        and coalesce((select a.source_table from asked as a), 'balisnap:Payment') = 'balisnap:Payment'
        and t.payment_id = (select a.id from asked as a)
    union all
    select
        'balisnap:BookingItem' as source_table,
        t.booking_item_id as id,
        rulebook.named_key('booking', 'balisnap:BookingItem:' || t.booking_item_id) as key
    from landing_balisnap."BookingItem" as t
    where
        (select a.id from asked as a) is not null
        and coalesce((select a.source_table from asked as a), 'balisnap:BookingItem') = 'balisnap:BookingItem'
        and t.booking_item_id = (select a.id from asked as a)
    union all
    select
        'bstadmin:booking_finances' as source_table,
        t.booking_finance_id as id,
        rulebook.row_key('finance', 'bstadmin', 'booking_finances', t.booking_finance_id::text) as key
    from landing_bstadmin.booking_finances as t
    where
        (select a.id from asked as a) is not null
        and coalesce((select a.source_table from asked as a), 'bstadmin:booking_finances') = 'bstadmin:booking_finances'
        and t.booking_finance_id = (select a.id from asked as a)
    union all
    select
        'balisnap:VariantRatePlan' as source_table,
        t.rate_plan_id as id,
        rulebook.row_key('rate', 'balisnap', 'VariantRatePlan', t.rate_plan_id::text) as key
    from landing_balisnap."VariantRatePlan" as t
    where
        (select a.id from asked as a) is not null
        and coalesce((select a.source_table from asked as a), 'balisnap:VariantRatePlan') = 'balisnap:VariantRatePlan'
        and t.rate_plan_id = (select a.id from asked as a)
    union all
    select
        'balisnap:Booking' as source_table,
        t.booking_id as id,
        null as key
    from landing_balisnap."Booking" as t
    where
        (select a.id from asked as a) is not null
        and coalesce((select a.source_table from asked as a), 'balisnap:Booking') = 'balisnap:Booking'
        and t.booking_id = (select a.id from asked as a)
    union all
    select
        'bstadmin:bookings' as source_table,
        t.booking_id as id,
        null as key
    from landing_bstadmin.bookings as t
    where
        (select a.id from asked as a) is not null
        and coalesce((select a.source_table from asked as a), 'bstadmin:bookings') = 'bstadmin:bookings'
        and t.booking_id = (select a.id from asked as a)
    union all
    select
        'balisnap:TourProduct' as source_table,
        t.product_id as id,
        null as key
    from landing_balisnap."TourProduct" as t
    where
        (select a.id from asked as a) is not null
        and coalesce((select a.source_table from asked as a), 'balisnap:TourProduct') = 'balisnap:TourProduct'
        and t.product_id = (select a.id from asked as a)
    union all
    select
        'balisnap:TourVariant' as source_table,
        t.variant_id as id,
        null as key
    from landing_balisnap."TourVariant" as t
    where
        (select a.id from asked as a) is not null
        and coalesce((select a.source_table from asked as a), 'balisnap:TourVariant') = 'balisnap:TourVariant'
        and t.variant_id = (select a.id from asked as a)
    union all
    select
        'balisnap:TourPackage' as source_table,
        t.package_id as id,
        null as key
    from landing_balisnap."TourPackage" as t
    where
        (select a.id from asked as a) is not null
        and coalesce((select a.source_table from asked as a), 'balisnap:TourPackage') = 'balisnap:TourPackage'
        and t.package_id = (select a.id from asked as a)
    union all
    select
        'bstadmin:tour_packages' as source_table,
        t.package_id as id,
        null as key
    from landing_bstadmin.tour_packages as t
    cross join asked as a
    where
        t.package_id = a.id or t.slug = a.slug
        or (a.id is null and nullif(a.match_name, '') = rulebook.match_name(t.package_name))
    union all
    select
        'bstadmin:tours' as source_table,
        t.tour_id as id,
        null as key
    from landing_bstadmin.tours as t
    cross join asked as a
    where t.tour_id = a.id or t.slug = a.slug
),

-- Keys of the rows that hang on another one.
keys as (
    select
        a.key,
        a.key::text as address
    from asked as a
    where a.key is not null and a.source_table is null
    union all
    select
        l.key,
        l.source_table || ':' || l.id as address
    from landed as l
    cross join asked as a
    where l.key is not null and (a.source_table is null or l.source_table = a.source_table)
)

select
    'booking' as kind,
    c.booking_key as key,
    null as address,
    c.channel_code || ' ' || c.external_booking_ref as said,
    null::uuid as row_key
from public.booking_core as c
where
    c.channel_code = any(array(select r.channel_code from public.channel_registry as r))
    and c.external_booking_ref = any(array(select case when a.source_table is null then a.ref end from asked as a))

union all

-- An identity as the queue names it: `GETYOURGUIDE:GYG-123456`.
select
    'booking' as kind,
    c.booking_key as key,
    null as address,
    c.channel_code || ' ' || c.external_booking_ref as said,
    null::uuid as row_key
from public.booking_core as c
where
    c.channel_code = split_part((select a.word from asked as a), ':', 1)
    and c.external_booking_ref = rulebook.norm_ref(regexp_replace((select a.word from asked as a), '^[^:]*:', ''))

union all

select
    lower(r.entity_type) as kind,
    r.entity_key as key,
    r.source_system || ':' || r.source_table || ':' || r.source_pk as address,
    r.external_ref_kind || ' ' || r.external_ref as said,
    null::uuid as row_key
from refs as r

union all

select
    'booking' as kind,
    p.booking_key as key,
    p.payment_key::text as address,
    p.said,
    p.payment_key as row_key
from payments as p

union all

select
    'booking' as kind,
    k.key,
    null as address,
    'booking key' as said,
    null::uuid as row_key
from keys as k
inner join public.booking_core as c on k.key = c.booking_key

union all

select
    'booking' as kind,
    p.booking_key as key,
    k.address,
    'payment' as said,
    p.payment_key as row_key
from keys as k
inner join public.payment_event as p on k.key = p.payment_key

union all

select
    'booking' as kind,
    i.booking_key as key,
    k.address,
    'item' as said,
    i.booking_item_key as row_key
from keys as k
inner join public.booking_item_snapshot as i on k.key = i.booking_item_key

union all

select
    'booking' as kind,
    f.booking_key as key,
    k.address,
    'finance' as said,
    f.finance_bridge_key as row_key
from keys as k
inner join public.ops_finance_bridge as f on k.key = f.finance_bridge_key

union all

select
    'booking' as kind,
    o.booking_key as key,
    k.address,
    'assignment' as said,
    o.assignment_key as row_key
from keys as k
inner join public.ops_assignment as o on k.key = o.assignment_key

union all

select
    'variant' as kind,
    r.variant_key as key,
    k.address,
    'rate' as said,
    r.variant_rate_key as row_key
from keys as k
inner join public.catalog_variant_rate as r on k.key = r.variant_rate_key

union all

select
    'product' as kind,
    p.product_key as key,
    null as address,
    'product ' || p.slug as said,
    null::uuid as row_key
from public.catalog_product as p
cross join asked as a
where
    a.source_table is null
    and (
        p.product_key = a.key or p.slug = a.slug
        or (a.id is null and nullif(a.match_name, '') = rulebook.match_name(p.name))
    )

union all

select
    'variant' as kind,
    v.variant_key as key,
    null as address,
    'variant ' || v.code as said,
    null::uuid as row_key
from public.catalog_variant as v
cross join asked as a
where a.source_table is null and (v.variant_key = a.key or v.code = a.exact)

union all

select
    'source' as kind,
    null::uuid as key,
    l.source_table || ':' || l.id as address,
    l.source_table || ' ' || l.id as said,
    null::uuid as row_key
from landed as l
cross join asked as a
where a.source_table is null or l.source_table = a.source_table

union all

select
    'source' as kind,
    null::uuid as key,
    q.source_system || ':' || q.source_table || ':' || q.source_pk as address,
    'queue row ' || q.queue_type || ' ' || q.reason_code as said,
    q.queue_key as row_key
from keys as k
inner join public.unmapped_queue as q on k.key = q.queue_key
