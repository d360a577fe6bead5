{# Schemas are named as the folder says, without the target's name in front: `public` is the bridge's. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
