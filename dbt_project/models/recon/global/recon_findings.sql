-- What the queries over the bridge found: one row a finding, with the query that found it. Gate G-02 counts the bridge
-- rows (products, variants, bookings, payments) among them, the required queries are listed in every report.
with found as (
    select 'recon_orphans' as query, batch, entity, key, status, detail from {{ ref('recon_orphans') }}

    union all

    select 'recon_head_counts' as query, batch, entity, key, status, detail from {{ ref('recon_head_counts') }}

    union all

    select 'recon_status_drift' as query, batch, entity, key, status, detail from {{ ref('recon_status_drift') }}

    union all

    select 'recon_payment_linkage' as query, batch, entity, key, status, detail from {{ ref('recon_payment_linkage') }}

    union all

    select 'recon_open_reviews' as query, batch, entity, key, status, detail from {{ ref('recon_open_reviews') }}

    union all

    select
        'recon_payment_linkage' as query, 'E' as batch, 'payment' as entity, bridge_key as key,
        'AMOUNT_DIFFERS' as status,
        jsonb_build_object('currency_code', currency_code, 'amount', amount, 'source_row', source_key) as detail
    from {{ ref('recon_rows_payments') }}
    where category = 'bridged' and money_category = 'unaccounted'
),

bridge_rows as (
    select 'product' as entity, product_key as key from {{ source('bridge', 'catalog_product') }}

    union all

    select 'variant' as entity, variant_key as key from {{ source('bridge', 'catalog_variant') }}

    union all

    select 'booking' as entity, booking_key as key from {{ source('bridge', 'booking_core') }}

    union all

    select 'payment' as entity, payment_key as key from {{ source('bridge', 'payment_event') }}
)

select
    found.batch,
    found.query,
    found.entity,
    found.key::text as key,
    found.status,
    found.detail,
    bridge_rows.key is not null as is_bridge_row
from found
left join bridge_rows on found.entity = bridge_rows.entity and found.key = bridge_rows.key

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
