select
    gate_id,
    numerator,
    denominator,
    value,
    detail
from {{ ref('recon_d') }}
where kind = 'measure'
