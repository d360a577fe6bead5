-- What the queries over the bridge found: one row a finding, with the query that found it. Gate G-02 counts the bridge
-- rows (products, variants, bookings, payments) among them, the required queries are listed in every report.
{{ config(twin='composite') }}

with found as (
    select
        'recon_orphans' as query,
        batch,
        entity,
        key,
        status,
        detail
    from {{ ref('recon_orphans') }}

    union all

    select
        'recon_head_counts' as query,
        batch,
        entity,
        key,
        status,
        detail
    from {{ ref('recon_head_counts') }}

    union all

    select
        'recon_status_drift' as query,
        batch,
        entity,
        key,
        status,
        detail
    from {{ ref('recon_status_drift') }}

    union all

    select
        'recon_payment_linkage' as query,
        batch,
        entity,
        key,
        status,
        detail
    from {{ ref('recon_payment_linkage') }}

    union all

    select
        'recon_open_reviews' as query,
        batch,
        entity,
        key,
        status,
        detail
    from {{ ref('recon_open_reviews') }}

    union all

    select
        'recon_values' as query,
        batch,
        entity,
        key,
        status,
        detail
    from {{ ref('recon_values') }}

    union all

    select
        'recon_payment_linkage' as query,
        'E' as batch,
        'payment' as entity,
        bridge_key as key,
        case when money_category = 'unaccounted' then 'AMOUNT_DIFFERS' else 'PAYMENT_DIFFERS' end as status,
        jsonb_build_object('currency_code', currency_code, 'amount', amount, 'source_row', source_key) as detail
    from {{ ref('recon_rows_payments') }}
    where category = 'bridged' and (money_category = 'unaccounted' or not has_its_facts)
)

select
    found.batch,
    found.query,
    found.entity,
    found.key::text as key,
    found.status,
    found.detail,
    hit.is_bridge_row is not null as is_bridge_row
from found
-- each looked up by its key: they are few, whatever the tables hold
left join
    lateral (
        select true as is_bridge_row from {{ source('bridge', 'catalog_product') }} as products
        where found.entity = 'product' and products.product_key = found.key
        union all
        select true as is_bridge_row from {{ source('bridge', 'catalog_variant') }} as variants
        where found.entity = 'variant' and variants.variant_key = found.key
        union all
        select true as is_bridge_row from {{ source('bridge', 'booking_core') }} as cores
        where found.entity = 'booking' and cores.booking_key = found.key
        union all
        select true as is_bridge_row from {{ source('bridge', 'payment_event') }} as events
        where found.entity = 'payment' and events.payment_key = found.key
        limit 1
    ) as hit
    on true

union all

-- two refs may point at rows that are fine themselves: listed, and held against the refs, not against these rows
select
    refs.batch,
    'recon_duplicate_refs' as query,
    refs.entity,
    refs.key,
    refs.status,
    refs.detail,
    false as is_bridge_row
from {{ ref('recon_duplicate_refs') }} as refs

union all

-- drift that the recomputed status has settled (mapping 4.7): listed, no fault of the bridge's row
select
    drift.batch,
    'recon_stored_status' as query,
    drift.entity,
    drift.key::text as key,
    drift.status,
    drift.detail,
    false as is_bridge_row
from {{ ref('recon_stored_status') }} as drift
