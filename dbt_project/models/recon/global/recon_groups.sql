-- The landed rows of each entity by where they went (and where their money went). A faulty row, one that is nowhere or
-- whose money is another, is a group of its own, so that one reading gives both the equation and its exceptions.
-- `batch` is the batch from whose end on the entity has to be accounted for.
{{ config(twin='composite') }}

{%- set entities = {
    'products': 'C', 'variants': 'C', 'rates': 'C', 'packages': 'C',
    'bookings': 'D', 'items': 'D', 'travellers': 'D',
    'payments': 'E', 'finances': 'E', 'finance_items': 'E'
} %}
{%- for entity, batch in entities.items() %}
    select
        '{{ batch }}'::text as batch,
        '{{ entity | replace('_', ' ') }}'::text as entity,
        r.category,
        r.reason,
        r.currency_code,
        r.money_category,
        r.money_reason,
        k.faulty_key,
        count(*)::numeric as rows,
        sum(r.amount) as amount
    from {{ ref('recon_rows_' ~ entity) }} as r
    cross join
        lateral (
            values (
                case
                    when r.category = 'unaccounted' or r.money_category = 'unaccounted'
                        then r.source || ':' || r.source_key
                end
            )
        ) as k (faulty_key)
    group by r.category, r.reason, r.currency_code, r.money_category, r.money_reason, k.faulty_key

    union all
{% endfor %}
select
    'C' as batch,
    'landed tables' as entity,
    v.category,
    null as reason,
    null as currency_code,
    null as money_category,
    null as money_reason,
    v.faulty_key,
    v.rows,
    null as amount
from {{ ref('recon_landing') }} as l
cross join
    lateral (
        values
        ('bridged', null, least(l.landed_rows, l.present_rows)::numeric),
        ('unaccounted', l.source_system || '.' || l.table_name, (l.landed_rows - l.present_rows)::numeric)
    ) as v (category, faulty_key, rows)
where v.faulty_key is null or l.landed_rows is distinct from l.present_rows
