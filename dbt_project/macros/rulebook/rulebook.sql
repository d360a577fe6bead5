{#- What the rulebook's functions share, decided when they are created. -#}

{#- A rulebook function called by another one: without its database, because the body is stored as text and has to
    work in a clone of the database too. -#}
{% macro rulebook(name) -%}
    {{- return(function(name).include(database=false)) -}}
{%- endmacro %}

{#- Inside of a bracket expression: the 25 code points with the Unicode property White_Space. -#}
{% macro white_space() -%}
    {{- return('\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000') -}}
{%- endmacro %}

{#- The same without line feed and carriage return. -#}
{% macro white_space_in_line() -%}
    {{- return('\\t\\x0b\\x0c \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000') -}}
{%- endmacro %}

{#- Code points that the text rule removes: ZERO WIDTH SPACE, WORD JOINER, BYTE ORDER MARK. -#}
{% macro invisible() -%}
    {{- return('\\u200b\\u2060\\ufeff') -}}
{%- endmacro %}

{#- And the two that external refs lose besides: ZERO WIDTH NON-JOINER and JOINER. -#}
{% macro joiners() -%}
    {{- return('\\u200c\\u200d') -}}
{%- endmacro %}

{#- The collation that `lower` and `upper` use: full Unicode, whatever the database's own is. The first two map one
    character to one and agree on every code point; ICU stands in where the operating system has no C.utf8, and
    differs in the 103 characters with a longer upper or lower case. -#}
{% macro unicode_collation() -%}
    {%- if not execute -%}
        {{- return('pg_catalog."C"') -}}
    {%- endif -%}
    {%- set query -%}
        select c.collname
        from pg_catalog.pg_collation as c
        where
            c.collname in ('pg_c_utf8', 'C.utf8', 'C.UTF-8', 'und-x-icu')
            and c.collnamespace = 'pg_catalog'::regnamespace
            and c.collencoding in (
                -1, (select d.encoding from pg_catalog.pg_database as d where d.datname = current_database())
            )
        order by array_position(array['pg_c_utf8', 'C.utf8', 'C.UTF-8', 'und-x-icu']::name[], c.collname)
        limit 1
    {%- endset -%}
    {%- set found = run_query(query).columns[0].values() -%}
    {%- if not found -%}
        {{- exceptions.raise_compiler_error(
            'The ops database has no collation with full Unicode case mapping '
            '(pg_c_utf8, C.utf8 or und-x-icu): create one or use a server built with ICU.'
        ) -}}
    {%- endif -%}
    {{- return('pg_catalog."' ~ found[0] ~ '"') -}}
{%- endmacro %}
