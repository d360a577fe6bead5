-- A table: the gates are tests of it, and each would measure the whole batch again. The verdict reads the view.
{{ config(materialized='table', unlogged=true) }}

select
    gate_id,
    numerator,
    denominator,
    value,
    detail
from {{ ref('recon_c') }}
where kind = 'measure'
