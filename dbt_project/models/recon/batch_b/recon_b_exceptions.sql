select
    case dictionary when 'channel_registry' then 'B-01' else 'B-02' end::text as gate_id,
    dictionary as entity,
    code as key,
    case when is_wanted then 'MISSING' else 'UNEXPECTED' end as status,
    is_wanted as is_counted,
    null::jsonb as detail
from {{ ref('recon_dictionaries') }}
where is_wanted <> is_found

union all

select
    'B-03' as gate_id,
    'seed script' as entity,
    item as key,
    'ROWS_ADDED' as status,
    true as is_counted,
    detail
from {{ ref('recon_gate_inputs') }}
where gate_id = 'B-03' and not passed
