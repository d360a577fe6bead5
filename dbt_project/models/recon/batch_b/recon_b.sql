-- What the verdict of batch B reads: its measures and its exceptions. It brings no rows of a source, so the global
-- gates have nothing to hold against one: N/A.
{{ recon_measure_rows(ref('recon_b_measures')) }}

union all

{{ recon_exception_rows(ref('recon_b_exceptions')) }}

union all

select
    'measure' as kind,
    g.gate_id,
    0 as numerator,
    0 as denominator,
    null as value,
    null as entity,
    null as key,
    null as status,
    null as is_counted,
    null as detail
from (values ('G-01'), ('G-02'), ('G-08')) as g (gate_id)
