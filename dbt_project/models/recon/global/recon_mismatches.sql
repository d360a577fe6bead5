-- Gate G-02: bridge rows (products, variants, bookings, payments) with an unexplained difference; one row a difference.
with differences as (
    select batch, entity, key, status from {{ ref('recon_orphans') }}

    union all

    select batch, entity, key, status from {{ ref('recon_head_counts') }}

    union all

    select batch, entity, key, status from {{ ref('recon_status_drift') }}

    union all

    select batch, entity, key, status from {{ ref('recon_payment_linkage') }}

    union all

    select batch, entity, key, status from {{ ref('recon_open_reviews') }}

    union all

    select 'E' as batch, 'payment' as entity, bridge_key as key, 'AMOUNT_DIFFERS' as status
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
    differences.batch,
    differences.entity,
    differences.key,
    differences.status
from differences
inner join bridge_rows on differences.entity = bridge_rows.entity and differences.key = bridge_rows.key
