-- The catalog as (object, definition), for bridge/fingerprint.py: what a schema says, nothing of how it is stored.
-- No oid, no column position, no name that Postgres made up for a column's own sequence. The setting
-- phase2.fingerprint_schemas is an array of the schemas that are asked, or empty for all but the system's. Needs an
-- empty search_path, so that every name is written out.
with asked as (
    select nullif(current_setting('phase2.fingerprint_schemas', true), '')::text[] as names
),

schemas as (
    select
        n.oid,
        n.nspname,
        quote_ident(n.nspname) as name,
        n.nspowner,
        n.nspacl
    from pg_catalog.pg_namespace as n
    cross join asked as a
    where
        n.nspname !~ '^pg_'
        and n.nspname <> 'information_schema'
        and n.nspname = any(coalesce(a.names, array[n.nspname::text]))
),

extension_members as (
    select
        d.classid,
        d.objid
    from pg_catalog.pg_depend as d
    where d.deptype = 'e'
),

-- a sequence that belongs to a column goes by the column's name
owned_sequences as (
    select
        d.objid as sequence_oid,
        d.refobjid as table_oid,
        d.refobjsubid as column_number
    from pg_catalog.pg_depend as d
    where
        d.classid = 'pg_catalog.pg_class'::regclass
        and d.refclassid = 'pg_catalog.pg_class'::regclass
        and d.refobjsubid > 0
        and d.deptype in ('a', 'i')
        and exists (
            select 1 from pg_catalog.pg_class as c
            where c.oid = d.objid and c.relkind = 'S'
        )
),

relations as (
    select
        c.oid,
        c.relkind,
        c.relpersistence,
        c.relowner,
        c.relacl,
        c.relrowsecurity,
        c.relforcerowsecurity,
        c.reloptions,
        s.name || '.' || quote_ident(c.relname) as name,
        coalesce(
            (
                select o.table_oid::regclass || '.' || quote_ident(a.attname)
                from owned_sequences as o
                inner join pg_catalog.pg_attribute as a on o.table_oid = a.attrelid and o.column_number = a.attnum
                where o.sequence_oid = c.oid
            ),
            s.name || '.' || quote_ident(c.relname)
        ) as label,
        case c.relkind
            when 'r' then 'table'
            when 'p' then 'partitioned table'
            when 'f' then 'foreign table'
            when 'v' then 'view'
            when 'm' then 'materialized view'
            when 'c' then 'type'
            when 'S' then 'sequence'
        end as kind,
        case when c.relispartition then pg_catalog.pg_get_expr(c.relpartbound, c.oid) end as partition_bound
    from pg_catalog.pg_class as c
    inner join schemas as s on c.relnamespace = s.oid
    where
        c.relkind in ('r', 'p', 'f', 'v', 'm', 'c', 'S')
        and not exists (
            select 1 from extension_members as e
            where e.classid = 'pg_catalog.pg_class'::regclass and e.objid = c.oid
        )
),

routines as (
    select
        p.oid,
        p.proowner,
        p.proacl,
        p.prokind,
        case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' else 'function' end as kind,
        s.name || '.' || quote_ident(p.proname)
        || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')' as label
    from pg_catalog.pg_proc as p
    inner join schemas as s on p.pronamespace = s.oid
    where
        not exists (
            select 1 from extension_members as e
            where e.classid = 'pg_catalog.pg_proc'::regclass and e.objid = p.oid
        )
),

types as (
    select
        t.oid,
        t.typtype,
        t.typowner,
        t.typacl,
        t.typbasetype,
        t.typtypmod,
        t.typnotnull,
        t.typdefault,
        s.name || '.' || quote_ident(t.typname) as label
    from pg_catalog.pg_type as t
    inner join schemas as s on t.typnamespace = s.oid
    where
        t.typtype in ('e', 'd')
        and not exists (
            select 1 from extension_members as e
            where e.classid = 'pg_catalog.pg_type'::regclass and e.objid = t.oid
        )
),

-- whatever has an owner and can be granted
granted as (
    select
        'schema' as kind,
        name as label,
        nspowner as owner,
        nspacl as acl,
        pg_catalog.acldefault('n', nspowner) as default_acl
    from schemas
    union all
    select
        kind,
        label,
        relowner as owner,
        relacl as acl,
        case relkind
            when 'S' then pg_catalog.acldefault('s', relowner) else pg_catalog.acldefault('r', relowner)
        end as default_acl
    from relations
    union all
    select
        kind,
        label,
        proowner as owner,
        proacl as acl,
        pg_catalog.acldefault('f', proowner) as default_acl
    from routines
    union all
    select
        'type' as kind,
        label,
        typowner as owner,
        typacl as acl,
        pg_catalog.acldefault('T', typowner) as default_acl
    from types
),

grants as (
    select
        g.kind || ' ' || g.label as object,
        g.owner,
        x.grantee,
        x.privilege_type,
        x.is_grantable
    from granted as g
    cross join lateral pg_catalog.aclexplode(coalesce(g.acl, g.default_acl)) as x
    union all
    select
        'column ' || r.label || '.' || quote_ident(a.attname) as object,
        r.relowner as owner,
        x.grantee,
        x.privilege_type,
        x.is_grantable
    from relations as r
    inner join pg_catalog.pg_attribute as a on r.oid = a.attrelid
    cross join lateral pg_catalog.aclexplode(a.attacl) as x
),

objects as (
    select
        'schema ' || name as object,
        'owner ' || pg_catalog.pg_get_userbyid(nspowner) as definition
    from schemas

    union all

    select
        kind || ' ' || label as object,
        concat_ws(
            ', ', 'owner ' || pg_catalog.pg_get_userbyid(relowner),
            case relpersistence when 'u' then 'unlogged' when 't' then 'temporary' end,
            case when relrowsecurity then 'row level security' end,
            case when relforcerowsecurity then 'forced for its owner' end,
            'with ' || array_to_string(reloptions, ' '), partition_bound,
            case when relkind in ('v', 'm') then 'as ' || pg_catalog.pg_get_viewdef(oid) end
        ) as definition
    from relations
    where relkind <> 'S'

    union all

    select
        'sequence ' || r.label as object,
        concat_ws(
            ', ', 'owner ' || pg_catalog.pg_get_userbyid(r.relowner),
            pg_catalog.format_type(s.seqtypid, null), 'start ' || s.seqstart, 'increment ' || s.seqincrement,
            'from ' || s.seqmin || ' to ' || s.seqmax, 'cache ' || s.seqcache, case when s.seqcycle then 'cycle' end
        ) as definition
    from relations as r
    inner join pg_catalog.pg_sequence as s on r.oid = s.seqrelid

    union all

    select
        'column ' || r.label || '.' || quote_ident(a.attname) as object,
        concat_ws(
            ' ', pg_catalog.format_type(a.atttypid, a.atttypmod),
            (
                select 'collate ' || quote_ident(l.collname)
                from pg_catalog.pg_collation as l
                inner join pg_catalog.pg_type as t on a.atttypid = t.oid
                where l.oid = a.attcollation and a.attcollation <> t.typcollation
            ),
            case when a.attnotnull then 'not null' end,
            case a.attidentity
                when 'a' then 'generated always as identity' when 'd' then 'generated by default as identity'
            end,
            case a.attgenerated when '' then 'default ' else 'generated always as ' end || case
                when
                    exists (
                        select 1 from owned_sequences as o
                        where o.table_oid = a.attrelid and o.column_number = a.attnum
                    ) and pg_catalog.pg_get_expr(d.adbin, d.adrelid) like 'nextval(%'
                    then 'the next value of its own sequence'
                else pg_catalog.pg_get_expr(d.adbin, d.adrelid)
            end
        ) as definition
    from relations as r
    inner join pg_catalog.pg_attribute as a on r.oid = a.attrelid
    left join pg_catalog.pg_attrdef as d on a.attrelid = d.adrelid and a.attnum = d.adnum
    where r.relkind <> 'S' and a.attnum > 0 and not a.attisdropped

    union all

    select
        'constraint ' || r.label || '.' || quote_ident(c.conname) as object,
        pg_catalog.pg_get_constraintdef(c.oid) as definition
    from relations as r
    inner join pg_catalog.pg_constraint as c on r.oid = c.conrelid
    where c.contype not in ('n', 't')  -- not null is the column's, a constraint trigger is a trigger

    union all

    select
        'index ' || r.label || '.' || quote_ident(c.relname) as object,
        pg_catalog.pg_get_indexdef(i.indexrelid) || case when i.indisvalid then '' else ' (not valid)' end as definition
    from relations as r
    inner join pg_catalog.pg_index as i on r.oid = i.indrelid
    inner join pg_catalog.pg_class as c on i.indexrelid = c.oid

    union all

    select
        'trigger ' || r.label || '.' || quote_ident(t.tgname) as object,
        pg_catalog.pg_get_triggerdef(t.oid)
        || case t.tgenabled when 'O' then '' when 'D' then ' (disabled)' else ' (' || t.tgenabled::text || ')' end
            as definition
    from relations as r
    inner join pg_catalog.pg_trigger as t on r.oid = t.tgrelid
    where not t.tgisinternal

    union all

    select
        'rule ' || r.label || '.' || quote_ident(w.rulename) as object,
        pg_catalog.pg_get_ruledef(w.oid) as definition
    from relations as r
    inner join pg_catalog.pg_rewrite as w on r.oid = w.ev_class
    where w.rulename <> '_RETURN'

    union all

    select
        'policy ' || r.label || '.' || quote_ident(p.polname) as object,
        concat_ws(
            ' ', p.polcmd::text, case when p.polpermissive then 'permissive' else 'restrictive' end, 'to',
            (
                select
                    string_agg(
                        case g.role when 0 then 'public' else pg_catalog.pg_get_userbyid(g.role) end, ', '
                        order by pg_catalog.pg_get_userbyid(g.role)
                    )
                from unnest(p.polroles) as g (role)
            ),
            'using ' || pg_catalog.pg_get_expr(p.polqual, p.polrelid),
            'check ' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)
        ) as definition
    from relations as r
    inner join pg_catalog.pg_policy as p on r.oid = p.polrelid

    union all

    select
        'statistics ' || s.name || '.' || quote_ident(x.stxname) as object,
        pg_catalog.pg_get_statisticsobjdef(x.oid) as definition
    from pg_catalog.pg_statistic_ext as x
    inner join schemas as s on x.stxnamespace = s.oid

    union all

    select
        kind || ' ' || label as object,
        'owner ' || pg_catalog.pg_get_userbyid(proowner) || ', '
        || case
            when prokind = 'a' then 'returns ' || pg_catalog.pg_get_function_result(oid)
            else pg_catalog.pg_get_functiondef(oid)
        end as definition
    from routines

    union all

    select
        'type ' || t.label as object,
        'owner ' || pg_catalog.pg_get_userbyid(t.typowner) || ', '
        || case t.typtype
            when 'e'
                then (
                    select 'enum ' || string_agg(quote_literal(e.enumlabel), ', ' order by e.enumsortorder)
                    from pg_catalog.pg_enum as e
                    where e.enumtypid = t.oid
                )
            else concat_ws(
                ' ',
                'domain',
                pg_catalog.format_type(t.typbasetype, t.typtypmod),
                case when t.typnotnull then 'not null' end,
                'default ' || t.typdefault,
                (
                    select string_agg(pg_catalog.pg_get_constraintdef(c.oid), ' ' order by c.conname)
                    from pg_catalog.pg_constraint as c
                    where c.contypid = t.oid and c.contype <> 'n'
                )
            )
        end as definition
    from types as t

    union all

    select
        'extension ' || quote_ident(e.extname) as object,
        'version ' || e.extversion || ' in schema ' || s.name as definition
    from pg_catalog.pg_extension as e
    inner join schemas as s on e.extnamespace = s.oid

    union all

    -- what an owner may do by being the owner is not listed: later servers know more of it
    select
        'grant '
        || g.object
        || ' to '
        || case g.grantee when 0 then 'public' else pg_catalog.pg_get_userbyid(g.grantee) end
            as object,
        string_agg(
            lower(g.privilege_type) || case when g.is_grantable then ' with grant option' else '' end, ', '
            order by g.privilege_type
        ) as definition
    from grants as g
    where g.grantee <> g.owner
    group by g.object, g.grantee

    union all

    select
        'grant ' || g.kind || ' ' || g.label || ' to its owner' as object,
        'taken away: ' || string_agg(lower(x.privilege_type), ', ' order by x.privilege_type) as definition
    from granted as g
    cross join lateral pg_catalog.aclexplode(g.default_acl) as x
    where
        g.acl is not null
        and x.grantee = g.owner
        and not exists (
            select 1 from pg_catalog.aclexplode(g.acl) as has
            where has.grantee = g.owner and has.privilege_type = x.privilege_type
        )
    group by g.kind, g.label

    union all

    select
        'default grant of ' || pg_catalog.pg_get_userbyid(d.defaclrole) || ' in schema ' || s.name || ' on '
        || d.defaclobjtype::text
        || ' to '
        || case x.grantee when 0 then 'public' else pg_catalog.pg_get_userbyid(x.grantee) end
            as object,
        string_agg(
            lower(x.privilege_type) || case when x.is_grantable then ' with grant option' else '' end, ', '
            order by x.privilege_type
        ) as definition
    from pg_catalog.pg_default_acl as d
    inner join schemas as s on d.defaclnamespace = s.oid
    cross join lateral pg_catalog.aclexplode(d.defaclacl) as x
    group by d.defaclrole, s.name, d.defaclobjtype, x.grantee
)

select
    object,
    coalesce(definition, '') as definition
from objects
order by object collate "C"
