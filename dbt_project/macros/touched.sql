{#
  What a batch computes again when it follows changes (bridge/follow.py, docs/delta.md): a predicate that leaves the
  touched rows; nothing is left out by a run that computes everything. Asked only where models begin (staging) and where
  they look at what the bridge holds of others: everything between is small by itself.
#}
{% macro touched_booking(source_system, column='booking_id') -%}
    {%- if var('follows', false) -%}
    {{ column }} in (select t.booking_id from phase2.touched_bookings as t where t.source_system = '{{ source_system }}')
    {%- else -%}true{%- endif -%}
{%- endmacro %}

{% macro touched_key(column) -%}
    {%- if var('follows', false) -%}
    {{ column }} in (select t.booking_key from phase2.touched_keys as t)
    {%- else -%}true{%- endif -%}
{%- endmacro %}

{% macro touched_subject() -%}
    {%- if var('follows', false) -%}
    (source_system, source_table, case source_system when 'canonical' then queue_key::text else source_pk end) in (
        select t.source_system, t.source_table, t.source_pk from phase2.touched_subjects as t
    )
    {%- else -%}true{%- endif -%}
{%- endmacro %}
