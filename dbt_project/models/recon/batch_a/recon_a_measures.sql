-- Gates of batch A. No table of the bridge is named: the gates have to say that it is missing.
select
    'A-00'::text as gate_id,
    count(*) filter (where not passed)::numeric as numerator,
    count(*)::numeric as denominator,
    count(*) filter (where not passed)::numeric as value,
    null::jsonb as detail
from {{ ref('recon_gate_inputs') }}
where gate_id = 'A-00'

union all

select
    'A-01' as gate_id,
    count(*) filter (where t.is_complete) as numerator,
    count(*) as denominator,
    count(*) filter (where t.is_complete) as value,
    null as detail
from (
    select
        table_name,
        bool_and(agrees) as is_complete
    from {{ ref('recon_contract') }}
    where kind = 'column'
    group by table_name
) as t

union all

select
    'A-02' as gate_id,
    count(*) filter (where not agrees) as numerator,
    count(*) filter (where wanted is not null) as denominator,
    count(*) filter (where not agrees) as value,
    null as detail
from {{ ref('recon_contract') }}
where kind <> 'column'

union all

select
    'A-03' as gate_id,
    count(*) filter (where not q.worked) as numerator,
    count(*) filter (where not q.is_source) as denominator,
    count(*) filter (where not q.worked) as value,
    null as detail
from (
    select
        before and after as worked,
        false as is_source
    from {{ ref('recon_legacy_queries') }}

    union all

    -- both applications have statements; one without any was not asked
    select
        s.source in (select l.source from {{ ref('recon_legacy_queries') }} as l) as worked,
        true as is_source
    from (values ('balisnap'), ('bstadmin')) as s (source)
) as q
