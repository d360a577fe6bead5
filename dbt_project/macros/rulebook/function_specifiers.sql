{#- dbt creates functions parallel unsafe. Ours read at most, so a call that the planner does not inline may still run
    in parallel workers. -#}
{% macro postgres__scalar_function_volatility_sql() %}
    {{ default__scalar_function_volatility_sql() }} parallel safe
{% endmacro %}
