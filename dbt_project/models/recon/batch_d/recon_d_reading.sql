-- A table: the gates' tests and the verdict of a run read the same numbers, of one snapshot, measured once.
{{ config(materialized='table', unlogged=true) }}

select
    kind,
    gate_id,
    numerator,
    denominator,
    value,
    entity,
    key,
    status,
    is_counted,
    detail,
    now() as read_at,
    (select r.run_id from {{ source('phase2', 'run_context') }} as r) as run_id
from {{ ref('recon_d') }}
