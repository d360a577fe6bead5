{#
  A gate as a test: fails when its measure in this model does not pass by its row of the gate registry, which alone
  holds comparator and threshold. A gate that is not measured, or not in the registry, fails too.
#}
{% test gate_passes(model, gate_id) %}
select
    wanted.gate_id,
    measured.numerator,
    measured.denominator,
    measured.value,
    registry.comparator,
    registry.threshold
from (select '{{ gate_id }}'::text as gate_id) as wanted
left join {{ ref('gate_registry') }} as registry on wanted.gate_id = registry.gate_id
left join {{ model }} as measured on wanted.gate_id = measured.gate_id and measured.kind = 'measure'
where
    registry.gate_id is null
    or {{ function('gate_status') }}(
        measured.numerator, measured.value, measured.denominator,
        registry.comparator, registry.threshold, registry.na_when_empty
    ) = 'FAIL'
{% endtest %}
