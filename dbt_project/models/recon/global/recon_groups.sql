-- The landed rows of each entity by where they went (and where their money went). A faulty row, one that is nowhere or
-- whose money is another, is a group of its own, so that one reading gives both the equation and its exceptions.
-- `batch` is the batch from whose end on the entity has to be accounted for.
{{ config(twin='composite') }}

{%- for entity in ['products', 'variants', 'rates', 'packages'] %}
    {{ recon_groups_of(entity, 'C') }}

    union all

{% endfor %}
select
    s.batch,
    s.entity,
    s.category,
    s.reason,
    s.currency_code,
    s.money_category,
    s.money_reason,
    s.faulty_key,
    s.has_amount,
    s.rows,
    s.amount
from {{ ref('recon_sums') }} as s

union all

select
    'C' as batch,
    'landed tables' as entity,
    v.category,
    null as reason,
    null as currency_code,
    null as money_category,
    null as money_reason,
    v.faulty_key,
    false as has_amount,
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
