select
    'A-00'::text as gate_id,
    'check'::text as entity,
    item as key,
    'FAILED'::text as status,
    true as is_counted,
    detail
from {{ ref('recon_gate_inputs') }}
where gate_id = 'A-00' and not passed

union all

select
    'A-01' as gate_id,
    'table' as entity,
    table_name as key,
    case when bool_and(found is null) then 'MISSING' else 'COLUMNS_DIFFER' end as status,
    true as is_counted,
    jsonb_object_agg(object_name, jsonb_build_object('wanted', wanted, 'found', found)) filter (where not agrees)
        as detail
from {{ ref('recon_contract') }}
where kind = 'column'
group by table_name
having not bool_and(agrees)

union all

select
    'A-02' as gate_id,
    kind as entity,
    table_name || '.' || object_name as key,
    case when found is null then 'MISSING' when wanted is null then 'UNEXPECTED' else 'DIFFERS' end as status,
    true as is_counted,
    jsonb_build_object('wanted', wanted, 'found', found) as detail
from {{ ref('recon_contract') }}
where kind <> 'column' and not agrees

union all

select
    'A-03' as gate_id,
    source as entity,
    query_name as key,
    case when not before and not after then 'FAILED' when before then 'FAILED_AFTER' else 'FAILED_BEFORE' end as status,
    true as is_counted,
    jsonb_build_object('error', error_message) as detail
from {{ ref('recon_legacy_queries') }}
where not (before and after)

union all

select
    'A-03' as gate_id,
    s.source as entity,
    '(all)' as key,
    'NOT_RUN' as status,
    true as is_counted,
    null as detail
from (values ('balisnap'), ('bstadmin')) as s (source)
where s.source not in (select l.source from {{ ref('recon_legacy_queries') }} as l)
