{# One cause of a payment's review row: which field, what is wrong, and the raw value (mapping 1). #}
{% macro payment_problem(field, problem, raw) -%}
    jsonb_build_object('field', '{{ field }}', 'problem', '{{ problem }}', 'raw', {{ raw }})
{%- endmacro %}
