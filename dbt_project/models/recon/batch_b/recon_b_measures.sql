select
    'B-01'::text as gate_id,
    count(*) filter (where is_found)::numeric as numerator,
    count(*)::numeric as denominator,
    count(*) filter (where is_found)::numeric as value,
    null::jsonb as detail
from {{ ref('recon_dictionaries') }}
where is_wanted and dictionary = 'channel_registry'

union all

select
    'B-02' as gate_id,
    count(*) filter (where not is_found) as numerator,
    count(*) as denominator,
    count(*) filter (where not is_found) as value,
    null as detail
from {{ ref('recon_dictionaries') }}
where is_wanted and dictionary <> 'channel_registry'

union all

select
    'B-03' as gate_id,
    count(*) filter (where not passed) as numerator,
    count(*) as denominator,
    count(*) filter (where not passed) as value,
    null as detail
from {{ ref('recon_gate_inputs') }}
where gate_id = 'B-03'
