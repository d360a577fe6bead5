-- sqlfluff:exclude_rules:ST05,ST06,RF04,RF02,RF03,AM04,AM06
-- The catalog as the sources have it: packages of bstadmin that no product names become products of their own.
create unlogged table floor.package as
select
    p.*,
    t.product_id,
    case
        when t.product_id is null then rulebook.row_key('product', 'bstadmin', 'tour_packages', p.package_id::text)
        else rulebook.row_key('product', 'balisnap', 'TourProduct', t.product_id::text)
    end as product_key,
    case
        when t.product_id is null then rulebook.row_key('variant', 'bstadmin', 'tour_packages', p.package_id::text)
    end as variant_key
from landing_bstadmin.tour_packages as p
left join landing_balisnap."TourProduct" as t on p.package_id = t.legacy_package_id;
analyze floor.package;

create view floor.catalog_product as
select
    rulebook.row_key('product', 'balisnap', 'TourProduct', product_id::text) as product_key,
    concat(left(rulebook.norm_slug(slug), 150), '-', product_id) as slug,
    coalesce(left(rulebook.norm_text(product_name), 255), slug) as name,
    left(rulebook.norm_text(category), 128) as product_category,
    rulebook.norm_text(short_description) as short_description,
    description,
    is_active,
    is_featured,
    thumbnail_url,
    left(color_code, 32) as color_code,
    priority
from landing_balisnap."TourProduct"
union all
select
    product_key,
    concat(left(rulebook.norm_slug(slug), 150), '-package-', package_id) as slug,
    coalesce(left(rulebook.norm_text(package_name), 255), slug) as name,
    null as product_category,
    rulebook.norm_text(short_description) as short_description,
    description,
    true as is_active,
    is_featured,
    thumbnail_url,
    left(color_code, 32) as color_code,
    priority
from floor.package
where product_id is null;

create view floor.catalog_variant as
select
    rulebook.row_key('variant', 'balisnap', 'TourVariant', variant_id::text) as variant_key,
    rulebook.row_key('product', 'balisnap', 'TourProduct', product_id::text) as product_key,
    concat(left(rulebook.norm_code(variant_code), 50), '-', variant_id) as code,
    coalesce(left(rulebook.norm_text(variant_name), 255), 'VAR-' || variant_id) as name,
    left(service_type, 32) as service_type,
    duration_days,
    duration_nights,
    min_pax,
    max_pax,
    rulebook.norm_currency(currency_code) as currency_code,
    is_default,
    is_active,
    booking_cutoff_hours,
    cancellation_policy
from landing_balisnap."TourVariant"
union all
select
    variant_key,
    product_key,
    'PKG-' || package_id as code,
    coalesce(left(rulebook.norm_text(package_name), 255), slug) as name,
    'PRIVATE' as service_type,
    coalesce(duration_days, 1) as duration_days,
    null as duration_nights,
    coalesce(min_booking, 1) as min_pax,
    max_booking as max_pax,
    rulebook.norm_currency(base_currency) as currency_code,
    true as is_default,
    true as is_active,
    24 as booking_cutoff_hours,
    null as cancellation_policy
from floor.package
where product_id is null;

create view floor.catalog_variant_rate as
select
    rulebook.row_key('rate', 'balisnap', 'VariantRatePlan', rate_plan_id::text) as variant_rate_key,
    rulebook.row_key('variant', 'balisnap', 'TourVariant', variant_id::text) as variant_key,
    left(rulebook.norm_code(traveler_type), 16) as traveler_type,
    rulebook.norm_currency(currency_code) as currency_code,
    rulebook.norm_money(price) as price,
    min_quantity,
    max_quantity,
    valid_from at time zone 'UTC' as valid_from,
    valid_to at time zone 'UTC' as valid_to,
    is_active
from landing_balisnap."VariantRatePlan"
union all
select
    rulebook.named_key('variant', 'fallback:' || package_id) as variant_rate_key,
    variant_key,
    'ADULT' as traveler_type,
    rulebook.norm_currency(base_currency) as currency_code,
    rulebook.norm_money(price_per_person) as price,
    null as min_quantity,
    null as max_quantity,
    null as valid_from,
    null as valid_to,
    true as is_active
from floor.package
where product_id is null and price_per_person > 0;

create view floor.channel_external_refs as
select
    rulebook.external_ref_key(entity_type, channel_code, kind, source_pk) as external_ref_key,
    entity_type,
    entity_key,
    channel_code,
    kind as external_ref_kind,
    source_pk as external_ref,
    source_system,
    source_table,
    source_pk
from (
    select
        'PRODUCT' as entity_type,
        'DIRECT' as channel_code,
        'BALISNAP_PRODUCT_ID' as kind,
        product_id::text as source_pk,
        rulebook.row_key('product', 'balisnap', 'TourProduct', product_id::text) as entity_key,
        'balisnap' as source_system,
        'TourProduct' as source_table
    from landing_balisnap."TourProduct"
    union all
    select
        'VARIANT' as entity_type,
        'DIRECT' as channel_code,
        'BALISNAP_VARIANT_ID' as kind,
        variant_id::text as source_pk,
        rulebook.row_key('variant', 'balisnap', 'TourVariant', variant_id::text) as entity_key,
        'balisnap' as source_system,
        'TourVariant' as source_table
    from landing_balisnap."TourVariant"
    union all
    select
        'PRODUCT' as entity_type,
        'MANUAL' as channel_code,
        'BSTADMIN_PACKAGE_ID' as kind,
        package_id::text as source_pk,
        product_key as entity_key,
        'bstadmin' as source_system,
        'tour_packages' as source_table
    from floor.package
    union all
    select
        'VARIANT' as entity_type,
        'MANUAL' as channel_code,
        'BSTADMIN_PACKAGE_ID' as kind,
        package_id::text as source_pk,
        variant_key as entity_key,
        'bstadmin' as source_system,
        'tour_packages' as source_table
    from floor.package
    where variant_key is not null
) as ids;

create view floor.source_leftovers as
select
    rulebook.named_key('product', 'leftover:' || source_system || ':' || source_table || ':' || source_pk)
        as leftover_key,
    source_system,
    source_table,
    source_pk,
    attributes
from (
    select
        'balisnap' as source_system,
        'VariantItinerary' as source_table,
        itinerary_id::text as source_pk,
        to_jsonb(t) as attributes
    from landing_balisnap."VariantItinerary" as t
    union all
    select
        'balisnap' as source_system,
        'VariantRatePlan' as source_table,
        rate_plan_id::text as source_pk,
        to_jsonb(t) as attributes
    from landing_balisnap."VariantRatePlan" as t
    union all
    select
        'bstadmin' as source_system,
        'tour_itineraries' as source_table,
        itinerary_id::text as source_pk,
        to_jsonb(t) as attributes
    from landing_bstadmin.tour_itineraries as t
) as leftovers;
