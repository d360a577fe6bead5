{#
  Materialization `recon_view`: a view that is replaced in place.

  dbt's own `view` makes a new one and drops the old one with all that stands on it: making the views of one batch
  would drop those of the others, which share its inputs. Only when its columns have changed (the project has, so that
  every batch's views are made again) is the old one dropped.
#}
{% materialization recon_view, adapter='postgres', supported_languages=['sql'] %}
    {%- set target_relation = this.incorporate(type='view') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {% if config.get('contract').enforced %}{{ get_assert_columns_equivalent(sql) }}{% endif %}

    {% call statement('main') -%}
        do $recon_view$
        begin
            create or replace view {{ target_relation }} as (
                {{ sql }}
            );
        exception
            when invalid_table_definition then
                drop view {{ target_relation }} cascade;
                create view {{ target_relation }} as (
                    {{ sql }}
                );
        end
        $recon_view$
    {%- endcall %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do adapter.commit() %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}
