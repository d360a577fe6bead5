{#
  Materialization `recon_view`: a view that is replaced in place.

  dbt's own `view` makes a new one and drops the old one with all that stands on it: making the views of one batch
  would drop those of the others, which share its inputs. Only when its columns have changed (the project has, so that
  every batch's views are made again) is the old one dropped.

  Config `twin`: what else the same SQL is made into, in the same schema, so that gates can be measured where something
  was touched (bridge/measure.py). Only the relations that it reads are others:

    part       view `part_…`, of the touched bookings alone
    kept       this, and a table `kept_…` for its rows, empty, with a view `anew_…` to fill it: of all rows, by what was
               kept already
    together   a table `kept_…` alone: its rows are made again all at once
    sums       a table `kept_…` and a view `anew_…` as well, for sums over kept rows, which are brought up to date by the
               same sums of rows that went and came: views `gone_…` and `made_…` (of the kept views' tables of these
               names). Numeric columns are added, the others say of what
    composite  view `kept_…`, of kept rows instead of what they were computed from
#}
{% materialization recon_view, adapter='postgres', supported_languages=['sql'] %}
    {%- set target_relation = this.incorporate(type='view') -%}
    {%- set twin = config.get('twin') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {% if config.get('contract').enforced %}{{ get_assert_columns_equivalent(sql) }}{% endif %}

    {#- one at a time: models share twins, and would wait for each other in turn -#}
    {% call statement('alone') -%}select pg_advisory_xact_lock(hashtextextended('recon_view', 0)){%- endcall %}
    {% call statement('main') -%}{{ recon_replace_view(target_relation, sql) }}{%- endcall %}
    {% if twin in ('part', 'kept') %}
        {%- call statement('part') -%}
            {{ recon_replace_view(recon_twin('part', this.identifier), recon_of_twins(sql, 'part')) }}
        {%- endcall -%}
    {% endif %}
    {% if twin in ('kept', 'together', 'sums') %}
        {%- call statement('kept') -%}
            drop table if exists {{ recon_twin('kept', this.identifier) }} cascade;
            create unlogged table {{ recon_twin('kept', this.identifier) }} as
            select * from {{ target_relation }}
            with no data;
            {%- for index in config.get('indexes', []) %}
            create index on {{ recon_twin('kept', this.identifier) }}
            using {{ index.get('type', 'btree') }} ({{ index.columns | join(', ') }});
            {%- endfor %}
        {%- endcall -%}
        {%- set kinds = {'kept': ['anew'], 'together': [], 'sums': ['gone', 'made', 'anew']} -%}
        {%- for kind in kinds[twin] -%}
            {%- call statement(kind) -%}
                {{ recon_replace_view(recon_twin(kind, this.identifier), recon_of_twins(sql, kind)) }}
            {%- endcall -%}
        {%- endfor -%}
    {% elif twin == 'composite' %}
        {%- call statement('kept') -%}
            {{ recon_replace_view(recon_twin('kept', this.identifier), recon_of_twins(sql, 'kept')) }}
        {%- endcall -%}
    {% endif %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do adapter.commit() %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}


{% macro recon_replace_view(relation, sql) -%}
    do $recon_view$
    begin
        create or replace view {{ relation }} as (
            {{ sql }}
        );
    exception
        when invalid_table_definition then
            drop view {{ relation }} cascade;
            create view {{ relation }} as (
                {{ sql }}
            );
    end
    $recon_view$
{%- endmacro %}


{% macro recon_twin(kind, identifier) -%}
    {{ return('"' ~ this.schema ~ '"."' ~ kind ~ '_' ~ identifier ~ '"') }}
{%- endmacro %}


{# The SQL of a model, with the twins of the relations that it reads in their place. #}
{% macro recon_of_twins(sql, kind) -%}
    {%- set made = namespace(sql=sql) -%}
    {%- set touched = recon_touched_rows() -%}
    {%- for unique_id in model.depends_on.nodes -%}
        {%- set node = graph.sources.get(unique_id) or graph.nodes.get(unique_id) -%}
        {%- if node -%}
            {%- set identifier = node.get('identifier') or node.alias -%}
            {%- set is_landed_or_bridge = kind == 'part' and node.schema ~ '.' ~ identifier in touched -%}
            {%- if is_landed_or_bridge -%}
                {%- do recon_part_of(node.schema, identifier, touched[node.schema ~ '.' ~ identifier]) -%}
            {%- endif -%}
            {%- set twin = node.config.get('twin') -%}
            {%- if kind in ('gone', 'made') and twin == 'kept' -%}
                {%- do recon_rows_for(kind, identifier) -%}
            {%- endif -%}
            {%- if is_landed_or_bridge or (kind == 'part' and twin in ('part', 'kept'))
                or (kind in ('gone', 'made', 'anew') and twin == 'kept')
                or (kind == 'kept' and twin in ('kept', 'together', 'sums', 'composite')) -%}
                {%- set made.sql = made.sql | replace(
                    '"' ~ node.schema ~ '"."' ~ identifier ~ '"',
                    recon_twin('touched' if is_landed_or_bridge else ('kept' if kind == 'anew' else kind), identifier)
                ) -%}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(made.sql) }}
{%- endmacro %}


{#
  The rows of a landed or canonical table that belong to touched bookings: a view, and an empty table for them, since
  joins of so few rows want a table whose size is known.
#}
{% macro recon_part_of(schema, identifier, condition) -%}
    {%- call statement('part_of') -%}
        {{ recon_replace_view(
            recon_twin('part', identifier),
            'select t.* from "' ~ schema ~ '"."' ~ identifier ~ '" as t where ' ~ condition
        ) }};
        create unlogged table if not exists {{ recon_twin('touched', identifier) }} as
        select * from {{ recon_twin('part', identifier) }}
        with no data
    {%- endcall -%}
{%- endmacro %}


{# An empty table for the rows that go from, or come to, a view's kept ones. #}
{% macro recon_rows_for(kind, identifier) -%}
    {%- call statement('rows_for') -%}
        create unlogged table if not exists {{ recon_twin(kind, identifier) }} as
        select * from {{ recon_twin('kept', identifier) }}
        with no data
    {%- endcall -%}
{%- endmacro %}


{% macro recon_touched_rows() -%}
    {%- set of_balisnap = "(select b.booking_id from phase2.touched_bookings as b where b.source_system = 'balisnap')" -%}
    {%- set of_bstadmin = "(select b.booking_id from phase2.touched_bookings as b where b.source_system = 'bstadmin')" -%}
    {%- set of_bridge = 't.booking_key in (select k.booking_key from phase2.touched_keys as k)' -%}
    {{ return({
        'landing_balisnap.Booking': 't.booking_id in ' ~ of_balisnap,
        'landing_balisnap.BookingItem': 't.booking_id in ' ~ of_balisnap,
        'landing_balisnap.Payment': 't.booking_id in ' ~ of_balisnap,
        'landing_balisnap.BookingTraveler':
            't.booking_item_id in (select i.booking_item_id from landing_balisnap."BookingItem" as i where i.booking_id in '
            ~ of_balisnap ~ ')',
        'landing_bstadmin.bookings': 't.booking_id in ' ~ of_bstadmin,
        'landing_bstadmin.booking_finances': 't.booking_id in ' ~ of_bstadmin,
        'landing_bstadmin.booking_finance_items':
            't.booking_finance_id in (select f.booking_finance_id from landing_bstadmin.booking_finances as f'
            ~ ' where f.booking_id in ' ~ of_bstadmin ~ ')',
        'public.booking_core': of_bridge,
        'public.booking_contact': of_bridge,
        'public.booking_party': of_bridge,
        'public.booking_item_snapshot': of_bridge,
        'public.payment_event': of_bridge,
        'public.ops_booking_state': of_bridge,
        'public.ops_assignment': of_bridge,
        'public.ops_finance_bridge': of_bridge,
        'public.channel_external_refs':
            "t.entity_type <> 'BOOKING' or t.entity_key in (select k.booking_key from phase2.touched_keys as k)",
    }) }}
{%- endmacro %}
