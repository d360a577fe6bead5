select
    gate_id,
    numerator,
    denominator,
    value,
    detail
from {{ ref('recon_c') }}
where kind = 'measure'
