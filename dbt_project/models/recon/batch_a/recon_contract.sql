-- Grain: one object of the target's contract (seed), or one that should not be there; found as the catalog shows it.
-- Reads the catalog alone, so that it stands when the tables do not.
with found_tables as (
    select
        c.oid,
        c.relname::text as table_name
    from pg_catalog.pg_class as c
    inner join pg_catalog.pg_namespace as n on c.relnamespace = n.oid
    where
        n.nspname = 'public'
        and c.relkind = 'r'
        and c.relpersistence = 'p'
        and c.relname::text in (select w.table_name from {{ ref('target_contract') }} as w)
),

found as (
    select
        t.table_name,
        'column' as kind,
        a.attname::text as object_name,
        concat(
            pg_catalog.format_type(a.atttypid, a.atttypmod),
            case when a.attnotnull then ' not null' end,
            ' default ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid)
        ) as definition
    from found_tables as t
    inner join pg_catalog.pg_attribute as a on t.oid = a.attrelid
    left join pg_catalog.pg_attrdef as d on a.attrelid = d.adrelid and a.attnum = d.adnum
    where a.attnum > 0 and not a.attisdropped

    union all

    select
        t.table_name,
        case c.contype
            when 'p' then 'primary_key' when 'u' then 'unique' when 'f' then 'foreign_key' when 'c' then 'check'
        end as kind,
        c.conname::text as object_name,
        replace(pg_catalog.pg_get_constraintdef(c.oid), ' public.', ' ') as definition
    from found_tables as t
    inner join pg_catalog.pg_constraint as c on t.oid = c.conrelid
    where c.contype in ('p', 'u', 'f', 'c')

    union all

    select
        t.table_name,
        'index' as kind,
        c.relname::text as object_name,
        replace(pg_catalog.pg_get_indexdef(i.indexrelid), ' public.', ' ')
        || case when i.indisvalid then '' else ' (invalid)' end as definition
    from found_tables as t
    inner join pg_catalog.pg_index as i on t.oid = i.indrelid
    inner join pg_catalog.pg_class as c on i.indexrelid = c.oid
    where
        not exists (
            select 1 from pg_catalog.pg_constraint as k
            where k.conindid = i.indexrelid and k.contype in ('p', 'u')
        )

    union all

    select
        t.table_name,
        'trigger' as kind,
        g.tgname::text as object_name,
        'trigger' as definition
    from found_tables as t
    inner join pg_catalog.pg_trigger as g on t.oid = g.tgrelid
    where not g.tgisinternal
)

select
    coalesce(wanted.table_name, found.table_name) as table_name,
    coalesce(wanted.kind, found.kind) as kind,
    coalesce(wanted.object_name, found.object_name) as object_name,
    wanted.definition as wanted,
    found.definition as found,
    -- one more constraint or index is additive; one more column or a trigger is another table
    coalesce(wanted.definition = found.definition, false)
    or (wanted.definition is null and found.kind not in ('column', 'trigger')) as agrees
from {{ ref('target_contract') }} as wanted
full join found
    on
        wanted.table_name = found.table_name
        and wanted.kind = found.kind
        and wanted.object_name = found.object_name
