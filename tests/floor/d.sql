-- sqlfluff:exclude_rules:ST05,ST06,RF04,RF02,RF03,AM04,AM06
-- What every statement of batch D asks for: each booking of both sources with its key and its rank in its identity.
create unlogged table floor.payment as
select
    p.booking_id,
    bool_or(p.says in ('PAID', 'PARTIALLY_REFUNDED')) as has_capture,
    bool_or(p.says = 'REFUNDED') as has_refund,
    bool_or(p.says = 'PENDING_PAYMENT') as has_pending,
    min(p.payment_date at time zone 'UTC') filter (where p.says in ('PAID', 'PARTIALLY_REFUNDED')) as paid_at
from (
    select
        source.*,
        rulebook.payment_status(source.payment_status_v2, source.payment_status) as says
    from landing_balisnap."Payment" as source
) as p
group by p.booking_id;

create unlogged table floor.item as
select
    i.*,
    count(*) over (partition by i.booking_id) as items,
    sum(i.total_amount) over (partition by i.booking_id) as booking_total,
    sum(i.adult_qty) over (partition by i.booking_id) as booking_adults,
    sum(i.child_qty) over (partition by i.booking_id) as booking_children,
    sum(i.infant_qty) over (partition by i.booking_id) as booking_infants,
    min(d.start_date) over (partition by i.booking_id) as starts_at,
    row_number() over (partition by i.booking_id order by i.booking_item_id) as place
from landing_balisnap."BookingItem" as i
left join landing_balisnap."Departure" as d on i.departure_id = d.departure_id
where i.item_status <> 'CANCELLED';
create index on floor.item (booking_id);

create unlogged table floor.finance as
select
    f.booking_finance_id,
    f.booking_id,
    f.pattern_id,
    f.validated_at at time zone 'UTC' as validated_at,
    f.is_locked,
    count(i.finance_item_id) as finance_items,
    count(i.finance_item_id) filter (where not i.paid) as unpaid_items
from landing_bstadmin.booking_finances as f
left join landing_bstadmin.booking_finance_items as i on f.booking_finance_id = i.booking_finance_id
group by f.booking_finance_id, f.booking_id, f.pattern_id, f.validated_at, f.is_locked;

create unlogged table floor.booking as
with said as (
    select
        'balisnap' as source_system,
        'Booking' as source_table,
        b.booking_id,
        'DIRECT' as channel_code,
        coalesce(rulebook.norm_ref(b.booking_ref), 'BS-' || b.booking_id) as ref,
        'DIRECT' as source_enum,
        b.created_at at time zone 'UTC' as created_at,
        b.updated_at at time zone 'UTC' as updated_at,
        rulebook.bali_date(b.created_at at time zone 'UTC') as received_on,
        coalesce(
            rulebook.bali_date(i.starts_at at time zone 'UTC'), rulebook.travel_day(b.booking_date)
        ) as tour_date,
        (i.starts_at at time zone 'UTC' at time zone 'Asia/Makassar')::time as tour_time,
        rulebook.norm_currency(b.currency_code) as currency_code,
        greatest(rulebook.norm_money(coalesce(i.booking_total, b.total_price)), 0) as total_price,
        rulebook.norm_count(b.number_of_adult) as number_of_adult,
        rulebook.norm_count(b.number_of_child) as number_of_child,
        i.booking_adults,
        i.booking_children,
        i.booking_infants,
        i.variant_id,
        i.booking_id is not null as has_items,
        b.status_v2,
        b.status,
        b.package_id,
        rulebook.norm_lines(b.note) as note,
        rulebook.norm_text(b.main_contact_name) as main_name,
        rulebook.norm_text(b.main_contact_email) as main_email,
        rulebook.norm_phone(b.phone_number) as phone,
        rulebook.norm_place(b.meeting_point) as pickup_location,
        rulebook.norm_place(b.meeting_point) as meeting_point,
        null::integer as driver_id,
        null::timestamptz as assigned_at,
        false as ops_is_paid,
        null::timestamptz as ops_paid_at,
        coalesce(p.has_capture, false) as has_capture
    from landing_balisnap."Booking" as b
    left join floor.item as i on b.booking_id = i.booking_id and i.place = 1
    left join floor.payment as p on b.booking_id = p.booking_id
    union all
    select
        'bstadmin' as source_system,
        'bookings' as source_table,
        b.booking_id,
        rulebook.booking_channel(b.source) as channel_code,
        coalesce(rulebook.norm_ref(b.booking_ref), 'OPS-' || b.booking_id) as ref,
        rulebook.norm_code(b.source) as source_enum,
        b.created_at at time zone 'UTC' as created_at,
        b.updated_at at time zone 'UTC' as updated_at,
        rulebook.bali_date(b.booking_date at time zone 'UTC') as received_on,
        rulebook.bali_date(b.tour_date at time zone 'UTC') as tour_date,
        rulebook.parse_tour_time(b.tour_time) as tour_time,
        rulebook.norm_currency(b.currency) as currency_code,
        rulebook.norm_money(b.total_price) as total_price,
        rulebook.norm_count(b.number_of_adult) as number_of_adult,
        rulebook.norm_count(b.number_of_child) as number_of_child,
        null as booking_adults,
        null as booking_children,
        null as booking_infants,
        null as variant_id,
        false as has_items,
        null as status_v2,
        rulebook.norm_code(b.status) as status,
        b.package_id,
        rulebook.norm_lines(b.note) as note,
        rulebook.norm_text(b.main_contact_name) as main_name,
        rulebook.norm_text(b.main_contact_email) as main_email,
        rulebook.norm_phone(b.phone_number) as phone,
        rulebook.norm_place(b.pickup_location) as pickup_location,
        rulebook.norm_place(b.meeting_point) as meeting_point,
        b.assigned_driver_id as driver_id,
        b.assigned_at at time zone 'UTC' as assigned_at,
        b.is_paid as ops_is_paid,
        b.paid_at at time zone 'UTC' as ops_paid_at,
        false as has_capture
    from landing_bstadmin.bookings as b
)

select
    ranked.*,
    rulebook.booking_key(ranked.channel_code, ranked.ref) as booking_key
from (
    select
        said.*,
        row_number() over (
            partition by said.channel_code collate "C", said.ref collate "C"
            order by said.has_capture desc, said.updated_at desc, said.source_system collate "C", said.booking_id desc
        ) as rank
    from said
    where length(said.ref) <= 128 and said.tour_date between date '1900-01-01' and date '2199-12-31'
) as ranked;

create unlogged table floor.status as
select
    b.booking_key,
    case
        when p.has_refund then 'REFUNDED'
        when p.has_capture then 'PAID'
        when p.has_pending then 'PENDING_PAYMENT'
        when p.booking_id is not null then 'FAILED'
        when b.source_system = 'balisnap' then rulebook.balisnap_status_payment(b.status_v2, b.status)
        when b.ops_is_paid then 'PAID'
        else 'PENDING_PAYMENT'
    end as customer_payment_status,
    case
        when b.source_system = 'bstadmin'
            then rulebook.fulfilment_status(
                b.status, f.finance_items, f.unpaid_items, f.validated_at,
                b.tour_date, rulebook.current_as_of(), b.driver_id, f.pattern_id
            )
        else rulebook.fulfilment_status_direct(
            rulebook.balisnap_says_cancelled(b.status_v2, b.status), b.tour_date, rulebook.current_as_of(),
            p.has_capture
        )
    end as ops_fulfillment_status,
    coalesce(p.paid_at, b.ops_paid_at) as paid_at
from floor.booking as b
left join floor.payment as p on b.source_system = 'balisnap' and b.booking_id = p.booking_id
left join floor.finance as f on b.source_system = 'bstadmin' and b.booking_id = f.booking_id
where b.rank = 1;

analyze floor.payment, floor.item, floor.finance, floor.booking, floor.status;

create view floor.booking_core as
select
    b.booking_key,
    b.channel_code,
    b.source_enum as source_enum_compat,
    b.ref as external_booking_ref,
    b.created_at as booking_created_at,
    b.received_on as booking_date,
    b.tour_date,
    b.tour_time,
    b.currency_code,
    b.total_price,
    b.number_of_adult,
    b.number_of_child,
    s.customer_payment_status,
    s.ops_fulfillment_status,
    case when r.entity_key is null then 'LEGACY_PACKAGE' else 'CATALOG_' || r.entity_type end as package_ref_type,
    r.entity_key as package_ref_key,
    b.package_id as legacy_package_id,
    b.note
from floor.booking as b
inner join floor.status as s on b.booking_key = s.booking_key
left join public.channel_external_refs as r
    on
        r.entity_type = case when b.variant_id is null then 'PRODUCT' else 'VARIANT' end
        and r.channel_code = case b.source_system when 'balisnap' then 'DIRECT' else 'MANUAL' end
        and r.external_ref_kind
        = case
            when b.variant_id is not null then 'BALISNAP_VARIANT_ID'
            when b.source_system = 'balisnap' then 'LEGACY_PACKAGE_ID'
            else 'BSTADMIN_PACKAGE_ID'
        end
        and r.external_ref = coalesce(b.variant_id, b.package_id)::text
where b.rank = 1;

create view floor.booking_contact as
with placeholders as materialized (
    select
        rulebook.placeholders('name') as names,
        rulebook.placeholders('email') as emails
)

select
    booking_key,
    left(main_name, 191) as main_name,
    left(main_email, 191) as main_email,
    left(phone, 64) as phone,
    pickup_location,
    meeting_point,
    rulebook.is_placeholder_name(main_name, placeholders.names) as is_placeholder_name,
    rulebook.is_placeholder_email(main_email, placeholders.emails) as is_placeholder_email,
    source_system as updated_from_source
from floor.booking
cross join placeholders
where rank = 1;

create view floor.booking_party as
select
    b.booking_key,
    coalesce(b.booking_adults, b.number_of_adult) as adult_qty,
    coalesce(b.booking_children, b.number_of_child, 0) as child_qty,
    coalesce(b.booking_infants, 0) as infant_qty,
    t.traveler_rows
from floor.booking as b
left join (
    select
        i.booking_id,
        jsonb_agg(to_jsonb(t) order by t.traveler_id) as traveler_rows
    from landing_balisnap."BookingTraveler" as t
    inner join floor.item as i on t.booking_item_id = i.booking_item_id
    group by i.booking_id
) as t on b.source_system = 'balisnap' and b.booking_id = t.booking_id
where b.rank = 1;

create view floor.booking_item_snapshot as
select
    rulebook.named_key('booking', 'balisnap:BookingItem:' || i.booking_item_id) as booking_item_key,
    b.booking_key,
    r.entity_key as variant_key,
    i.variant_id::text as variant_external_id,
    i.departure_id::text as departure_external_id,
    rulebook.norm_currency(i.currency_code) as currency_code,
    i.adult_qty,
    i.child_qty,
    i.infant_qty,
    rulebook.norm_money(i.adult_unit_price) as adult_unit_price,
    rulebook.norm_money(i.child_unit_price) as child_unit_price,
    rulebook.norm_money(i.discount_amount) as discount_amount,
    rulebook.norm_money(i.tax_amount) as tax_amount,
    rulebook.norm_money(i.total_amount) as total_amount,
    coalesce(i.snapshot, '{}') || jsonb_build_object('item_status', i.item_status) as snapshot_json
from floor.item as i
inner join floor.booking as b on b.source_system = 'balisnap' and i.booking_id = b.booking_id and b.rank = 1
left join public.channel_external_refs as r
    on
        r.entity_type = 'VARIANT' and r.channel_code = 'DIRECT' and r.external_ref_kind = 'BALISNAP_VARIANT_ID'
        and r.external_ref = i.variant_id::text
union all
select
    rulebook.named_key(
        'booking', 'canonical:booking_identity:' || channel_code || ':' || ref || ':synthetic'
    ) as booking_item_key,
    booking_key,
    null as variant_key,
    null as variant_external_id,
    null as departure_external_id,
    currency_code,
    number_of_adult as adult_qty,
    coalesce(number_of_child, 0) as child_qty,
    0 as infant_qty,
    coalesce(round(total_price / nullif(number_of_adult + coalesce(number_of_child, 0), 0), 2), 0)
        as adult_unit_price,
    coalesce(round(total_price / nullif(number_of_adult + coalesce(number_of_child, 0), 0), 2), 0)
        as child_unit_price,
    0 as discount_amount,
    0 as tax_amount,
    total_price as total_amount,
    '{"synthetic": true}' as snapshot_json
from floor.booking
where rank = 1 and not has_items;

create view floor.ops_booking_state as
select
    b.booking_key,
    s.ops_fulfillment_status,
    b.driver_id as assigned_driver_id,
    b.assigned_at,
    s.customer_payment_status = 'PAID' as is_paid_flag,
    case when s.customer_payment_status = 'PAID' then s.paid_at end as paid_at,
    b.source_system as updated_from_source
from floor.booking as b
inner join floor.status as s on b.booking_key = s.booking_key
where b.rank = 1;

create view floor.ops_assignment as
select
    rulebook.named_key(
        'booking', 'bstadmin:bookings:' || booking_id || ':assignment:' || driver_id
    ) as assignment_key,
    booking_key,
    driver_id,
    'BSTADMIN' as assignment_source,
    coalesce(assigned_at, updated_at) as assigned_at,
    true as is_active
from floor.booking
where rank = 1 and driver_id is not null;

create view floor.channel_external_refs as
select
    rulebook.external_ref_key('BOOKING', channel_code, kind, external_ref) as external_ref_key,
    'BOOKING' as entity_type,
    booking_key as entity_key,
    channel_code,
    kind as external_ref_kind,
    external_ref,
    source_system,
    source_table,
    booking_id::text as source_pk
from floor.booking
cross join
    lateral (
        values
        (rank = 1, 'BOOKING_REF', ref),
        (true, upper(source_system) || '_BOOKING_ID', booking_id::text)
    ) as named (is_one, kind, external_ref)
where is_one;
