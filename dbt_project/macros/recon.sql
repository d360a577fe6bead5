{# A queue row explains what it is about unless a run has closed it because its cause was gone. #}
{% macro recon_queue_stands(alias) -%}
    not ({{ alias }}.status = 'CLOSED' and coalesce({{ alias }}.resolved_by, '') = '{{ queue_closed_by_run() }}')
{%- endmacro %}

{# The source rows that a standing queue row names: one row a primary key. #}
{% macro recon_queued(source_system, source_table) -%}
    select distinct q.source_pk
    from {{ source('bridge', 'unmapped_queue') }} as q
    where
        q.source_system = '{{ source_system }}' and q.source_table = '{{ source_table }}'
        and {{ recon_queue_stands('q') }}
{%- endmacro %}

{# What an `entity` was bridged to, by the source id that its external ref holds. #}
{% macro recon_refs(entity_type, kind) -%}
    select r.external_ref, r.channel_code, r.entity_key
    from {{ source('bridge', 'channel_external_refs') }} as r
    where r.entity_type = '{{ entity_type }}' and r.external_ref_kind = '{{ kind }}'
{%- endmacro %}

{# A ref in its normal form (mapping 1). One of plain ASCII without blanks and small letters is its own, and most are:
   the rulebook's function is asked about the others only. #}
{% macro recon_norm_ref(value) -%}
    case
        when {{ value }} collate "C" ~ '^[!-`{-~]+$' then {{ value }} else {{ function('norm_ref') }}({{ value }})
    end
{%- endmacro %}

{# Each raw currency of a landed table with the rule's (few values, many rows: join it instead of asking per row). #}
{% macro recon_currencies(relation, column) -%}
    select k.code, {{ function('norm_currency') }}(k.code) as currency_code
    from (select distinct r.{{ column }} as code from {{ relation }} as r) as k
{%- endmacro %}

{# Each raw source of the landed bookings with its channel (mapping 4.1). #}
{% macro recon_channels() -%}
    select k.source, {{ function('booking_channel') }}(k.source) as channel_code
    from (select distinct r.source from {{ source('bstadmin', 'bookings') }} as r) as k
{%- endmacro %}

{# What may be queued instead of bridged (mapping 1): a ref longer than its column, a needed date missing or beyond. #}
{% macro recon_is_unbridgeable(ref, travel_day, created_at) -%}
    (
        coalesce(length({{ ref }}) > 128, false)
        or not {{ function('is_bridgeable_date') }}({{ travel_day }})
        or {{ created_at }} is null
        or {{ created_at }} < timestamp '1900-01-01'
        or {{ created_at }} >= timestamp '2200-01-01'
    )
{%- endmacro %}

{#
  One entity's part of the conservation equation, from its `recon_rows_…` view: a line of rows, and a line of money
  for each currency, and the rows of the `target` table where there is one of its own. `source = bridged + merged + queued + excluded + unaccounted` in every line; a line's
  `unaccounted_rows` are the rows behind its last term. A row that is nowhere counts in the line of rows alone, one
  that is bridged with other money in the line of its currency, so that their sum is the number of faulty rows.
#}
{% macro recon_parity_lines(rows, entity, batch, target) -%}
    select
        '{{ batch }}'::text as batch,
        '{{ entity }}'::text as entity,
        l.unit,
        sum(l.amount) as source,
        coalesce(sum(l.amount) filter (where l.category = 'bridged'), 0) as bridged,
        coalesce(sum(l.amount) filter (where l.category = 'merged'), 0) as merged,
        coalesce(sum(l.amount) filter (where l.category = 'queued'), 0) as queued,
        coalesce(sum(l.amount) filter (where l.category = 'excluded'), 0) as excluded,
        coalesce(sum(l.amount) filter (where l.category = 'unaccounted'), 0) as unaccounted,
        coalesce(sum(l.rows) filter (where l.category = 'unaccounted'), 0) as unaccounted_rows,
        {% if target %}case when l.unit = 'rows' then (select count(*) from {{ target }}) end{% else %}null::bigint{% endif %} as target,
        jsonb_object_agg(l.category || ': ' || l.reason, l.amount) filter (where l.reason is not null) as reasons
    from (
        with grouped as (
            select
                r.category, r.reason, r.currency_code, r.money_category, r.money_reason,
                count(*) as rows, sum(r.amount) as amount
            from {{ rows }} as r
            group by r.category, r.reason, r.currency_code, r.money_category, r.money_reason
        )

        select 'rows' as unit, g.category, g.reason, sum(g.rows) as amount, sum(g.rows) as rows
        from grouped as g
        group by g.category, g.reason

        union all

        select 'rows' as unit, 'bridged' as category, null as reason, 0 as amount, 0 as rows

        union all

        select
            g.currency_code as unit, g.money_category, g.money_reason,
            sum(g.amount) as amount,
            coalesce(sum(g.rows) filter (where g.category <> 'unaccounted'), 0) as rows
        from grouped as g
        where g.amount is not null
        group by g.currency_code, g.money_category, g.money_reason
    ) as l
    group by l.unit
{%- endmacro %}
