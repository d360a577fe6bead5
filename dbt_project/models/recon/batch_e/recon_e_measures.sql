select
    gate_id,
    numerator,
    denominator,
    value,
    detail
from {{ ref('recon_e') }}
where kind = 'measure'
