-- What the global gates count, one row a key; `scope` as in recon_global_measures.
{%- set scopes = {'A': [], 'B': [], 'C': ['C'], 'D': ['C', 'D'], 'E': ['C', 'D', 'E']} -%}
{%- for scope, batches in scopes.items() %}
select
    '{{ scope }}'::text as scope,
    'G-01'::text as gate_id,
    d.entity,
    d.key::text as key,
    d.status,
    true as is_counted,
    d.detail
from {{ ref('recon_duplicate_bookings') }} as d
{% if batches %}
union all

select
    '{{ scope }}' as scope,
    'G-02' as gate_id,
    m.entity,
    m.key::text as key,
    string_agg(distinct m.status, ', ') as status,
    true as is_counted,
    null as detail
from {{ ref('recon_mismatches') }} as m
where m.batch in ('{{ batches | join("', '") }}')
group by m.entity, m.key

union all

-- a row that is bridged, and whose money is not, is one exception
select
    '{{ scope }}' as scope,
    'G-08' as gate_id,
    u.entity,
    u.key,
    u.status,
    true as is_counted,
    u.detail
from {{ ref('recon_unaccounted') }} as u
where u.batch in ('{{ batches | join("', '") }}')
{% endif %}
{%- if not loop.last %}
union all
{% endif %}
{%- endfor %}
