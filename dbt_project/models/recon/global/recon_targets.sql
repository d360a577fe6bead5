-- Rows of the canonical table of each entity that has one of its own, with the batch that writes it.
{%- set tables = {
    'products': ('C', 'catalog_product'), 'variants': ('C', 'catalog_variant'), 'rates': ('C', 'catalog_variant_rate'),
    'bookings': ('D', 'booking_core'), 'items': ('D', 'booking_item_snapshot'),
    'payments': ('E', 'payment_event'), 'finances': ('E', 'ops_finance_bridge')
} %}
{%- for entity, (batch, table) in tables.items() %}
    select
        '{{ batch }}'::text as batch,
        '{{ entity }}'::text as entity,
        count(*) as rows
    from {{ source('bridge', table) }}
    {%- if not loop.last %}

        union all

    {% endif %}
{%- endfor %}
