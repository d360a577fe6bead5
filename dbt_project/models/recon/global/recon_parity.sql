-- The conservation equation (gate G-08): source = bridged + merged + queued + excluded + unaccounted, for the rows of
-- each entity and for its money, a line per currency. `batch` is the batch from whose end on the line has to hold.
with groups as (
    select * from {{ ref('recon_groups') }}
),

targets as (
    select * from {{ ref('recon_targets') }}
)

{{ recon_parity_lines('groups') }}
