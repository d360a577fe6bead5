-- Required query: keys that lead nowhere. Foreign keys that the database holds (it may have lost them), and the ones
-- that it cannot hold: polymorphic references, children that every row must have.
{{ config(twin='kept') }}

{%- set children = {
    'booking_contact': 'contact', 'booking_party': 'party', 'ops_booking_state': 'state'
} %}
select
    'C' as batch,
    'product' as entity,
    products.product_key as key,
    'PRODUCT_WITHOUT_VARIANT' as status,
    jsonb_build_object('slug', products.slug) as detail
from {{ source('bridge', 'catalog_product') }} as products
where
    not exists (
        select 1
        from {{ source('bridge', 'catalog_variant') }} as variants
        where variants.product_key = products.product_key
    )

union all

select
    'C' as batch,
    'variant' as entity,
    variants.variant_key as key,
    'VARIANT_WITHOUT_PRODUCT' as status,
    jsonb_build_object('code', variants.code, 'product_key', variants.product_key) as detail
from {{ source('bridge', 'catalog_variant') }} as variants
where
    not exists (
        select 1
        from {{ source('bridge', 'catalog_product') }} as products
        where products.product_key = variants.product_key
    )

union all

select
    'C' as batch,
    'rate' as entity,
    rates.variant_rate_key as key,
    'RATE_WITHOUT_VARIANT' as status,
    jsonb_build_object('variant_key', rates.variant_key) as detail
from {{ source('bridge', 'catalog_variant_rate') }} as rates
where
    not exists (
        select 1
        from {{ source('bridge', 'catalog_variant') }} as variants
        where variants.variant_key = rates.variant_key
    )

union all

select
    'C' as batch,
    'ref' as entity,
    refs.external_ref_key as key,
    'REF_TO_NOTHING' as status,
    jsonb_build_object('entity_type', refs.entity_type, 'kind', refs.external_ref_kind, 'ref', refs.external_ref)
        as detail
from {{ source('bridge', 'channel_external_refs') }} as refs
where
    refs.entity_type <> 'BOOKING'
    and not (
        refs.entity_type = 'PRODUCT'
        and exists (
            select 1 from {{ source('bridge', 'catalog_product') }} as p
            where p.product_key = refs.entity_key
        )
        or refs.entity_type = 'VARIANT'
        and exists (
            select 1 from {{ source('bridge', 'catalog_variant') }} as v
            where v.variant_key = refs.entity_key
        )
    )

union all

select
    'D' as batch,
    'ref' as entity,
    refs.external_ref_key as key,
    'REF_TO_NOTHING' as status,
    jsonb_build_object(
        'booking_key', refs.entity_key, 'kind', refs.external_ref_kind, 'ref', refs.external_ref
    ) as detail
from {{ source('bridge', 'channel_external_refs') }} as refs
where
    refs.entity_type = 'BOOKING'
    and not exists (
        select 1 from {{ source('bridge', 'booking_core') }} as cores
        where cores.booking_key = refs.entity_key
    )

union all

select
    'D' as batch,
    'booking' as entity,
    cores.booking_key as key,
    'PACKAGE_REF_TO_NOTHING' as status,
    jsonb_build_object('package_ref_type', cores.package_ref_type, 'package_ref_key', cores.package_ref_key) as detail
from {{ source('bridge', 'booking_core') }} as cores
left join {{ source('bridge', 'catalog_product') }} as products on cores.package_ref_key = products.product_key
left join {{ source('bridge', 'catalog_variant') }} as variants on cores.package_ref_key = variants.variant_key
where
    cores.package_ref_key is not null
    and (
        case cores.package_ref_type
            when 'CATALOG_PRODUCT' then products.product_key
            when 'CATALOG_VARIANT' then variants.variant_key
        end
    ) is null

union all

select
    'D' as batch,
    'booking' as entity,
    cores.booking_key as key,
    'CHANNEL_UNKNOWN' as status,
    jsonb_build_object('channel_code', cores.channel_code) as detail
from {{ source('bridge', 'booking_core') }} as cores
left join {{ source('bridge', 'channel_registry') }} as channels on cores.channel_code = channels.channel_code
where channels.channel_code is null
{% for table, child in children.items() %}
    union all

    select
        'D' as batch,
        'booking' as entity,
        coalesce(cores.booking_key, children.booking_key) as key,
        case
            when cores.booking_key is null then '{{ child | upper }}_WITHOUT_BOOKING'
            else 'BOOKING_WITHOUT_{{ child | upper }}'
        end as status,
        null::jsonb as detail
    from {{ source('bridge', 'booking_core') }} as cores
    full join {{ source('bridge', table) }} as children on cores.booking_key = children.booking_key
    where cores.booking_key is null or children.booking_key is null
{% endfor %}
union all

select
    'D' as batch,
    'booking' as entity,
    cores.booking_key as key,
    'BOOKING_WITHOUT_ITEM' as status,
    null::jsonb as detail
from {{ source('bridge', 'booking_core') }} as cores
where
    not exists (
        select 1
        from {{ source('bridge', 'booking_item_snapshot') }} as items
        where items.booking_key = cores.booking_key
    )

union all

select
    'D' as batch,
    'item' as entity,
    items.booking_item_key as key,
    case when cores.booking_key is null then 'ITEM_WITHOUT_BOOKING' else 'ITEM_VARIANT_TO_NOTHING' end as status,
    jsonb_build_object('booking_key', items.booking_key, 'variant_key', items.variant_key) as detail
from {{ source('bridge', 'booking_item_snapshot') }} as items
left join {{ source('bridge', 'booking_core') }} as cores on items.booking_key = cores.booking_key
left join {{ source('bridge', 'catalog_variant') }} as variants on items.variant_key = variants.variant_key
where cores.booking_key is null or (items.variant_key is not null and variants.variant_key is null)

union all

select
    'D' as batch,
    'assignment' as entity,
    assignments.assignment_key as key,
    'ASSIGNMENT_WITHOUT_BOOKING' as status,
    jsonb_build_object('booking_key', assignments.booking_key) as detail
from {{ source('bridge', 'ops_assignment') }} as assignments
where
    not exists (
        select 1 from {{ source('bridge', 'booking_core') }} as cores
        where cores.booking_key = assignments.booking_key
    )

union all

select
    'E' as batch,
    'finance' as entity,
    finances.finance_bridge_key as key,
    'FINANCE_WITHOUT_BOOKING' as status,
    jsonb_build_object('booking_key', finances.booking_key) as detail
from {{ source('bridge', 'ops_finance_bridge') }} as finances
where
    not exists (
        select 1 from {{ source('bridge', 'booking_core') }} as cores
        where cores.booking_key = finances.booking_key
    )

union all

select
    'E' as batch,
    'payment' as entity,
    events.payment_key as key,
    'PAYMENT_WITHOUT_BOOKING' as status,
    jsonb_build_object('booking_key', events.booking_key) as detail
from {{ source('bridge', 'payment_event') }} as events
where not exists (
    select 1 from {{ source('bridge', 'booking_core') }} as cores
    where cores.booking_key = events.booking_key
)
