-- The global gates, as the end of each batch asks them: `scope` is that batch, and holds what it and those before it
-- brought. A and B bring no rows of a source, so that there is nothing to hold against one. The detail of G-08 is the
-- equation itself, line by line.
{%- set scopes = {'A': [], 'B': [], 'C': ['C'], 'D': ['C', 'D'], 'E': ['C', 'D', 'E']} -%}
{%- set rows = {
    'C': ['catalog_product', 'catalog_variant'], 'D': ['booking_core'], 'E': ['payment_event']
} -%}
{%- for scope, batches in scopes.items() %}
select
    '{{ scope }}'::text as scope,
    'G-01'::text as gate_id,
    count(*)::numeric as numerator,
    (select count(*) from {{ source('bridge', 'booking_core') }})::numeric as denominator,
    count(*)::numeric as value,
    null::jsonb as detail
from {{ ref('recon_duplicate_bookings') }}

union all
{% if batches %}
select
    '{{ scope }}' as scope,
    'G-02' as gate_id,
    m.numerator,
    m.denominator,
    m.numerator / nullif(m.denominator, 0) as value,
    null as detail
from (
    select
        (
            select count(*)
            from (
                select distinct d.entity, d.key
                from {{ ref('recon_mismatches') }} as d
                where d.batch in ('{{ batches | join("', '") }}')
            ) as rows_with_one
        )::numeric as numerator,
        (
            {%- for b in batches %}{% for table in rows[b] %}
            (select count(*) from {{ source('bridge', table) }}){{ ' +' if not loop.last }}
            {%- endfor %}{{ ' +' if not loop.last }}{% endfor %}
        )::numeric as denominator
) as m

union all

select
    '{{ scope }}' as scope,
    'G-08' as gate_id,
    coalesce(sum(p.unaccounted_rows), 0) as numerator,
    coalesce(sum(p.source) filter (where p.unit = 'rows' and p.entity <> 'landed tables'), 0) as denominator,
    coalesce(sum(p.unaccounted_rows), 0) as value,
    jsonb_agg(to_jsonb(p)) as detail
from {{ ref('recon_parity') }} as p
where p.batch in ('{{ batches | join("', '") }}')
{%- else %}
select '{{ scope }}' as scope, 'G-02' as gate_id, 0 as numerator, 0 as denominator, null as value, null as detail

union all

select '{{ scope }}' as scope, 'G-08' as gate_id, 0 as numerator, 0 as denominator, 0 as value, null as detail
{%- endif %}
{%- if not loop.last %}

union all
{% endif %}
{%- endfor %}
