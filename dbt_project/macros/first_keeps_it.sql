{#
  Unique names out of wanted ones (mapping 1): the first in order keeps what it wants, every other gets `-{source_pk}`,
  again while the result is taken; cut so that the suffix fits the column.

    rows      relation: entity_key, scope (names are unique within it), wanted, source_pk (text), place (1 comes first)
    reserved  relation: scope, taken (names that rows not in `rows` hold already)
    width     of the column

  Returns entity_key and given. What is still taken after three suffixes ends in its own key, which no other row has.
#}
{% macro first_keeps_it(rows, reserved, width) %}
    {%- set attempts = 3 -%}
    with attempt_0 as (
        select entity_key, scope, left(wanted, {{ width }}) as wanted, source_pk, place
        from {{ rows }}
    ),

    {% for n in range(attempts + 1) -%}
    {% if n > 0 -%}
    attempt_{{ n }} as (
        select
            entity_key, scope,
            left(wanted, {{ width }} - length(source_pk) - 1) || '-' || source_pk as wanted,
            source_pk, place
        from ranked_{{ n - 1 }}
        where not keeps
    ),

    {% endif -%}
    ranked_{{ n }} as (
        select
            a.*,
            row_number() over (partition by a.scope, a.wanted order by a.place) = 1
            and not exists (select 1 from {{ reserved }} as r where r.scope = a.scope and r.taken = a.wanted)
            {%- for earlier in range(n) %}
            and not exists (
                select 1 from ranked_{{ earlier }} as r
                where r.keeps and r.scope = a.scope and r.wanted = a.wanted
            )
            {%- endfor %} as keeps
        from attempt_{{ n }} as a
    ){{ ',' if not loop.last }}

    {% endfor -%}

    {% for n in range(attempts + 1) -%}
    select entity_key, wanted as given
    from ranked_{{ n }}
    where keeps

    union all

    {% endfor -%}
    select entity_key, left(wanted, {{ width }} - 37) || '-' || entity_key as given
    from ranked_{{ attempts }}
    where not keeps
{% endmacro %}
