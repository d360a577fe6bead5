-- Grain: one item of a gate that only a run can measure, from the latest run that recorded the gate.
with latest as (
    select distinct on (gate_id)
        gate_id,
        run_id
    from {{ source('phase2', 'gate_inputs') }}
    order by gate_id asc, gate_input_id desc
)

-- a run that recorded a gate twice says what its last word was
select distinct on (inputs.gate_id, inputs.item)
    inputs.gate_id,
    inputs.item,
    inputs.passed,
    inputs.detail,
    inputs.recorded_at
from {{ source('phase2', 'gate_inputs') }} as inputs
inner join latest on inputs.gate_id = latest.gate_id and inputs.run_id = latest.run_id
order by inputs.gate_id asc, inputs.item asc, inputs.gate_input_id desc
