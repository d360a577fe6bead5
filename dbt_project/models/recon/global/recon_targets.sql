-- Rows of the canonical table of each entity that has one of its own.
{%- set tables = {
    'products': 'catalog_product', 'variants': 'catalog_variant', 'rates': 'catalog_variant_rate',
    'bookings': 'booking_core', 'items': 'booking_item_snapshot',
    'payments': 'payment_event', 'finances': 'ops_finance_bridge'
} %}
{%- for entity, table in tables.items() %}
    select
        '{{ entity }}'::text as entity,
        count(*) as rows
    from {{ source('bridge', table) }}
    {%- if not loop.last %}

        union all

    {% endif %}
{%- endfor %}
