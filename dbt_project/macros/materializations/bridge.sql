{#
  Materialization `bridge`: writes a model onto a canonical table that sql/phase2 made, and only what changed.

  The table is never created, altered, dropped or replaced. A row is written when it is new or when one of the
  model's columns differs; an unchanged rerun writes no tuple (mapping 6). Config:

    table         target in `public` (default: the model's name)
    into_schema   another schema than `public` (leftovers in `phase2`)
    key           primary key column of the target
    touch         columns that are written with a row but not compared (last_reconciled_at)
    update_only   never inserts (batch E on the statuses)
    remove_where  predicate over alias `t`: target rows in this scope that the model does not return are deleted
    range_by      column by which a first load is cut into ranges (default: booking_key; bridge/ranges.py)
    part          predicate over alias `t`: the rows whose keys the model can have (default: all); when there are none,
                  this is a first load, sorted by the key, in whose order the indexes grow

  A boolean model column `fill_only` marks rows whose existing target is newer than the sources (mapping 4.13):
  of these only null columns are filled.
#}
{% materialization bridge, adapter='postgres', supported_languages=['sql'] %}
    {%- set table = config.get('table', model.name) -%}
    {%- set into_schema = config.get('into_schema', 'public') -%}
    {%- set key = config.require('key') -%}
    {%- set touch = config.get('touch', []) -%}
    {%- set range_by = config.get('range_by', 'booking_key') -%}
    {%- if var('range_start', none) -%}
        {%- set sql = 'select r.* from (' ~ sql ~ ') as r where ' ~ in_range('r.' ~ range_by) -%}
    {%- endif -%}
    {%- set target_relation = adapter.get_relation(database=database, schema=into_schema, identifier=table) -%}
    {%- if target_relation is none -%}
        {%- do exceptions.raise_compiler_error(
            "table " ~ into_schema ~ "." ~ table ~ " is missing: run batch A first (make run BATCH=A)"
        ) -%}
    {%- endif -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {%- if var('range_start', none) -%}
        {#- of a range within one bin of a histogram the planner expects a single row, and would look up each by itself -#}
        {%- call statement('plans') -%}set local enable_nestloop = off{%- endcall -%}
    {%- endif -%}
    {%- set first_rows = 0 if config.get('update_only', false) or var('range_again', false)
        else bridge_first_load(
            target_relation, sql, config.get('part', 'true') ~ ' and ' ~ in_range('t.' ~ range_by)
        ) -%}
    {%- set first_load = first_rows > 0 -%}
    {%- set loosened = bridge_loosen(target_relation) if first_rows > var('loosen_from', 10000) else [] -%}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- set model_columns = get_column_schema_from_query(sql) -%}
    {%- set fill_only = 'fill_only' in model_columns | map(attribute='name') -%}
    {%- set columns = model_columns | rejectattr('name', 'equalto', 'fill_only') | list -%}
    {%- do bridge_check_types(target_relation, columns) -%}
    {%- set names = columns | map(attribute='name') | list -%}

    {%- if first_load -%}
        {%- set removed = 0 -%}
        {%- set written = (bridge_load(target_relation, sql, names, key), 0) -%}
        {%- do bridge_fasten(target_relation, loosened) -%}
    {%- else -%}
        {%- set removed = bridge_remove(
            target_relation, key, sql, config.get('remove_where'), in_range('t.' ~ range_by)
        ) -%}
        {%- set written = bridge_write(
            target_relation, key, sql, names, touch, fill_only,
            config.get('update_only', false)
        ) -%}
    {%- endif -%}

    {% call statement('changes') -%}
        insert into phase2.model_changes (run_id, model, target, inserted, updated, removed)
        select
            (select r.run_id from phase2.run_context as r),
            '{{ model.name }}', '{{ table }}', {{ written[0] }}, {{ written[1] }}, {{ removed }}
    {%- endcall %}
    {%- do bridge_analyze(target_relation, written[0] + written[1] + removed) -%}
    {% call noop_statement(
        name='main',
        message='BRIDGE ' ~ written[0] ~ ' new, ' ~ written[1] ~ ' changed, ' ~ removed ~ ' removed',
        code='BRIDGE',
        rows_affected=written[0] + written[1] + removed
    ) -%}{%- endcall %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do adapter.commit() %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}


{# A timestamp without zone would be read in the session's zone: refuse it here, where it can still be seen. #}
{% macro bridge_check_types(target_relation, columns) %}
    {%- set wanted = {} -%}
    {%- for column in adapter.get_columns_in_relation(target_relation) -%}
        {%- do wanted.update({column.name: column.dtype}) -%}
    {%- endfor -%}
    {%- for column in columns -%}
        {%- if column.name not in wanted -%}
            {%- do exceptions.raise_compiler_error(
                "column " ~ column.name ~ " is not in " ~ target_relation ~ ": see sql/phase2/001"
            ) -%}
        {%- elif wanted[column.name] == 'timestamp with time zone' and 'TZ' not in (column.dtype | upper)
            and 'WITH TIME ZONE' not in (column.dtype | upper) -%}
            {%- do exceptions.raise_compiler_error(
                "column " ~ column.name ~ " of " ~ model.name ~ " is " ~ column.dtype
                ~ "; " ~ target_relation ~ " holds timestamptz: use utc_instant()"
            ) -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{#
  When the table, or the part of it that the model's keys can be in, is empty, so that there is nothing to compare
  with: the rows that are to come, counted up to one more than `loosen_from`; else 0. Up to a savepoint, so that it
  leaves no lock behind.
#}
{% macro bridge_first_load(target_relation, sql, part) %}
    {%- call statement('savepoint') -%}savepoint first_load{%- endcall -%}
    {%- call statement('first_load', fetch_result=True) -%}
        select
            case
                when not exists (select 1 from {{ target_relation }} as t where {{ part }})
                then (select count(*) from (select 1 from ({{ sql }}) as s limit {{ var('loosen_from', 10000) + 1 }}) as l)
                else 0
            end
    {%- endcall -%}
    {%- call statement('rollback_to') -%}rollback to savepoint first_load{%- endcall -%}
    {{ return(load_result('first_load')['data'][0][0]) }}
{% endmacro %}


{#
  Takes foreign keys off a table that is about to be filled, inside the transaction that fills it and puts them back
  (bridge_fasten), which checks all rows at once: row by row the check is three quarters of a first load, for it locks
  the referenced row each time. The referenced table is locked meanwhile, so this is done only to keys on a table that
  this very run has filled, which nobody reads yet. When the locks are not to be had, or the table is another's, the
  keys stay on. Returns (name, definition) of each.
#}
{% macro bridge_loosen(target_relation) %}
    {%- call statement('foreign_keys', fetch_result=True) -%}
        select c.conname, pg_catalog.pg_get_constraintdef(c.oid)
        from pg_catalog.pg_constraint as c
        inner join pg_catalog.pg_class as r on c.conrelid = r.oid
        inner join pg_catalog.pg_class as parent on c.confrelid = parent.oid
        where
            c.conrelid = '{{ target_relation }}'::regclass
            and c.contype = 'f'
            and pg_catalog.pg_has_role(r.relowner, 'usage')
            and pg_catalog.pg_has_role(parent.relowner, 'usage')
            and not exists (select 1 from {{ target_relation }})
            and exists (
                select 1 from phase2.model_changes as m
                inner join phase2.run_context as run on m.run_id = run.run_id
                where m.target = parent.relname and m.inserted > {{ var('loosen_from', 10000) }}
            )
        order by c.conname
    {%- endcall -%}
    {%- set keys = load_result('foreign_keys')['data'] -%}
    {%- if keys -%}
        {%- call statement('loosen') -%}
            do $loosen$
            declare
                lock_timeout text := current_setting('lock_timeout');
            begin
                set local lock_timeout = '60s';
                {%- for name, definition in keys %}
                alter table {{ target_relation }} drop constraint {{ adapter.quote(name) }};
                {%- endfor %}
                perform set_config('lock_timeout', lock_timeout, true);
            exception
                when lock_not_available or deadlock_detected then null;
            end
            $loosen$
        {%- endcall -%}
    {%- endif -%}
    {{ return(keys) }}
{% endmacro %}


{% macro bridge_fasten(target_relation, keys) %}
    {%- for name, definition in keys -%}
        {%- call statement('fasten') -%}
            do $fasten$
            begin
                if not exists (
                    select 1 from pg_catalog.pg_constraint as c
                    where c.conrelid = '{{ target_relation }}'::regclass and c.conname = '{{ name }}'
                ) then
                    alter table {{ target_relation }} add constraint {{ adapter.quote(name) }} {{ definition }};
                end if;
            end
            $fasten$
        {%- endcall -%}
    {%- endfor -%}
{% endmacro %}


{# Fills the empty table; the number of rows. #}
{% macro bridge_load(target_relation, sql, names, key) %}
    {%- call statement('load') -%}
        insert into {{ target_relation }} ({{ names | join(', ') }})
        select {% for c in names %}s.{{ c }}{{ ', ' if not loop.last }}{% endfor %}
        from ({{ sql }}) as s
        order by s.{{ key }}
    {%- endcall -%}
    {{ return(load_result('load')['response'].rows_affected) }}
{% endmacro %}


{#
  Models and gates that read the table next plan with its real size, for which autovacuum would come too late; where a
  tenth of it was written, as autovacuum judges: of less the statistics of all rows say what they said.
#}
{% macro bridge_analyze(target_relation, changed) %}
    {%- if changed > 1000 -%}
        {%- call statement('known_rows', fetch_result=True) -%}
            select c.reltuples::bigint from pg_catalog.pg_class as c where c.oid = '{{ target_relation }}'::regclass
        {%- endcall -%}
        {%- if changed * 10 > load_result('known_rows')['data'][0][0] -%}
            {%- call statement('analyze') -%}analyze {{ target_relation }}{%- endcall -%}
        {%- endif -%}
    {%- endif -%}
{% endmacro %}


{# Deletes the rows of the scope that the model does not return; the number of them. #}
{% macro bridge_remove(target_relation, key, sql, remove_where, part) %}
    {%- if remove_where -%}
        {#- found first: the server reads a table with several processes only for a statement that does not write it -#}
        {%- set gone = 'gone_of_' ~ target_relation.identifier -%}
        {%- call statement('gone') -%}
            create temporary table {{ gone }} on commit drop as
            select t.{{ key }}
            from {{ target_relation }} as t
            where
                ({{ render(remove_where) }})
                and {{ part }}
                and not exists (select 1 from ({{ sql }}) as s where s.{{ key }} = t.{{ key }})
        {%- endcall -%}
        {%- if load_result('gone')['response'].rows_affected -%}
            {%- call statement('remove') -%}
                delete from {{ target_relation }} as t
                using {{ gone }} as g
                where t.{{ key }} = g.{{ key }} and ({{ render(remove_where) }}) and {{ part }}
            {%- endcall -%}
            {{ return(load_result('remove')['response'].rows_affected) }}
        {%- endif -%}
    {%- endif -%}
    {{ return(0) }}
{% endmacro %}


{# Inserts what is new, updates what differs; (new, changed). #}
{% macro bridge_write(target_relation, key, sql, names, touch, fill_only, update_only) %}
    {%- set values = names | reject('equalto', key) | list -%}
    {%- set compared = values | reject('in', touch) | list -%}
    {%- call statement('write', fetch_result=True) -%}
        with written as (
            {%- if not update_only %}
            insert into {{ target_relation }} as t ({{ names | join(', ') }})
            {%- else %}
            update {{ target_relation }} as t
            set
                {% for c in values %}{{ c }} = n.{{ c }}, {% endfor %}updated_at = now()
            from (
            {%- endif %}
            select
                s.{{ key }}
                {%- for c in values %},
                {% if fill_only and c not in touch -%}
                case when s.fill_only and x.{{ key }} is not null then coalesce(x.{{ c }}, s.{{ c }}) else s.{{ c }} end
                {%- else -%}s.{{ c }}{%- endif %} as {{ c }}
                {%- endfor %}
            from ({{ sql }}) as s
            {{ 'inner' if update_only else 'left' }} join {{ target_relation }} as x on s.{{ key }} = x.{{ key }}
            where
                {% if not update_only %}x.{{ key }} is null{% else %}false{% endif %}
                {%- if compared %}
                or {% for c in compared -%}
                {%- if fill_only -%}
                (case when s.fill_only then coalesce(x.{{ c }}, s.{{ c }}) else s.{{ c }} end)
                {%- else -%}s.{{ c }}{%- endif %} is distinct from x.{{ c }}
                {%- if not loop.last %} or {% endif %}{% endfor %}
                {%- endif %}
            {%- if update_only %}
            ) as n
            where t.{{ key }} = n.{{ key }}
            returning false as is_new
            {%- elif not values %}
            on conflict ({{ key }}) do nothing
            returning true as is_new
            {%- else %}
            on conflict ({{ key }}) do update
            set
                {% for c in values %}{{ c }} = excluded.{{ c }}, {% endfor %}updated_at = now()
            returning (t.xmax = 0) as is_new
            {%- endif %}
        )

        select count(*) filter (where is_new) as inserted, count(*) filter (where not is_new) as updated from written
    {%- endcall -%}
    {%- set counts = load_result('write')['data'][0] -%}
    {{ return((counts[0], counts[1])) }}
{% endmacro %}
