{#
  The range of keys that a first load is at (bridge/ranges.py): of bookings, or of the rows themselves where a table has
  other keys (config `range_by` of the materialization `bridge`). Everything, where the run is not cut into ranges.
#}
{% macro in_range(column) -%}
    {%- if var('range_start', none) -%}
    {{ column }} >= '{{ var('range_start') }}'::uuid
    {%- if var('range_end', none) %} and {{ column }} < '{{ var('range_end') }}'::uuid{% endif -%}
    {%- else -%}true{%- endif -%}
{%- endmacro %}
