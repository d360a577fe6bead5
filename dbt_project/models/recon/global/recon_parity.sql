-- The conservation equation (gate G-08): source = bridged + merged + queued + excluded + unaccounted, for the rows of
-- each entity and for its money, a line per currency. `batch` is the batch from whose end on the line has to hold.
{{ recon_parity_lines(ref('recon_rows_products'), 'products', 'C', source('bridge', 'catalog_product')) }}

union all

{{ recon_parity_lines(ref('recon_rows_variants'), 'variants', 'C', source('bridge', 'catalog_variant')) }}

union all

{{ recon_parity_lines(ref('recon_rows_rates'), 'rates', 'C', source('bridge', 'catalog_variant_rate')) }}

union all

{{ recon_parity_lines(ref('recon_rows_packages'), 'packages', 'C', none) }}

union all

{{ recon_parity_lines(ref('recon_rows_bookings'), 'bookings', 'D', source('bridge', 'booking_core')) }}

union all

{{ recon_parity_lines(ref('recon_rows_items'), 'items', 'D', source('bridge', 'booking_item_snapshot')) }}

union all

{{ recon_parity_lines(ref('recon_rows_travellers'), 'travellers', 'D', none) }}

union all

{{ recon_parity_lines(ref('recon_rows_payments'), 'payments', 'E', source('bridge', 'payment_event')) }}

union all

{{ recon_parity_lines(ref('recon_rows_finances'), 'finances', 'E', source('bridge', 'ops_finance_bridge')) }}

union all

-- what landed is still there; a table that lost rows is one unaccounted row of its own
select
    'C' as batch,
    'landed tables' as entity,
    'rows' as unit,
    coalesce(sum(landed_rows), 0) as source,
    coalesce(sum(least(landed_rows, present_rows)), 0) as bridged,
    0 as merged,
    0 as queued,
    0 as excluded,
    coalesce(sum(greatest(landed_rows - present_rows, 0)), 0) as unaccounted,
    count(*) filter (where landed_rows is distinct from present_rows) as unaccounted_rows,
    coalesce(sum(present_rows), 0) as target,
    null::jsonb as reasons
from {{ ref('recon_landing') }}
