-- What gate G-08 counts: one row a source row that is nowhere, or whose money is.
{%- set entities = {
    'products': ('C', false), 'variants': ('C', false), 'rates': ('C', false), 'packages': ('C', false),
    'bookings': ('D', true), 'items': ('D', true), 'travellers': ('D', false),
    'payments': ('E', true), 'finances': ('E', false)
} %}
{%- for entity, (batch, money) in entities.items() %}
select
    '{{ batch }}' as batch,
    '{{ entity }}' as entity,
    source || ':' || source_key as key,
    case when category = 'unaccounted' then 'UNACCOUNTED' else 'MONEY_DIFFERS' end as status,
    jsonb_build_object('bridge_key', bridge_key, 'currency_code', currency_code, 'amount', amount) as detail
from {{ ref('recon_rows_' ~ entity) }}
where category = 'unaccounted'{% if money %} or money_category = 'unaccounted'{% endif %}

union all
{% endfor %}
select
    'C' as batch,
    'landed tables' as entity,
    source_system || '.' || table_name as key,
    'LANDED_ROWS_LOST' as status,
    jsonb_build_object('landed_rows', landed_rows, 'present_rows', present_rows) as detail
from {{ ref('recon_landing') }}
where landed_rows is distinct from present_rows
