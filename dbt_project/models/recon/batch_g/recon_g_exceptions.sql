select
    gate_id,
    entity,
    key,
    status,
    is_counted,
    detail
from {{ ref('recon_g') }}
where kind = 'exception'
