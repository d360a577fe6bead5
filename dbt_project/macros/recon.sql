{# A queue row explains what it is about unless a run has closed it because its cause was gone. #}
{% macro recon_queue_stands(alias) -%}
    not ({{ alias }}.status = 'CLOSED' and coalesce({{ alias }}.resolved_by, '') = '{{ queue_closed_by_run() }}')
{%- endmacro %}

{# The source rows that a standing queue row of that type and reason names: one row a primary key. #}
{% macro recon_queued(source_system, source_table, queue_type, reasons) -%}
    select distinct q.source_pk
    from {{ source('bridge', 'unmapped_queue') }} as q
    where
        q.source_system = '{{ source_system }}' and q.source_table = '{{ source_table }}'
        and q.queue_type = '{{ queue_type }}' and q.reason_code in ('{{ reasons | join("', '") }}')
        and {{ recon_queue_stands('q') }}
{%- endmacro %}

{# What people decided a source row to be (mapping 3.9): one row a primary key, with the entity keys that they named. #}
{% macro recon_decided(source_system, source_table) -%}
    select
        q.source_pk,
        array_agg(lower((q.payload #>> '{resolution,entity_key}') collate "C")) as entity_keys
    from {{ source('bridge', 'unmapped_queue') }} as q
    where
        q.source_system = '{{ source_system }}' and q.source_table = '{{ source_table }}'
        and q.status in ('RESOLVED', 'CLOSED') and {{ recon_queue_stands('q') }}
        and q.payload #>> '{resolution,entity_key}' is not null
    group by q.source_pk
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

{# Whether nothing of a ref is left by the rule. One printable ASCII character is enough, and nearly all have one. #}
{% macro recon_is_blank_ref(value) -%}
    case
        when {{ value }} collate "C" ~ '[!-~]' then false else {{ function('norm_ref') }}({{ value }}) is null
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

{# The landed rows of an entity by where they and their money went; each faulty row a group of its own. #}
{% macro recon_groups_of(entity, batch) -%}
    select
        '{{ batch }}'::text as batch,
        '{{ entity | replace('_', ' ') }}'::text as entity,
        r.category,
        r.reason,
        r.currency_code,
        r.money_category,
        r.money_reason,
        k.faulty_key,
        r.amount is not null as has_amount,
        count(*)::numeric as rows,
        sum(r.amount) as amount
    from {{ ref('recon_rows_' ~ entity) }} as r
    cross join
        lateral (
            values (
                case
                    when r.category = 'unaccounted' or r.money_category = 'unaccounted'
                        then r.source || ':' || r.source_key
                end
            )
        ) as k (faulty_key)
    group by
        r.category, r.reason, r.currency_code, r.money_category, r.money_reason, k.faulty_key, r.amount is not null
{%- endmacro %}

{#
  The lines of the conservation equation out of the groups of `recon_groups` (or a part of them) and a CTE `targets`: for
  each entity one of rows, and one of money for each currency; source = bridged + merged + queued + excluded +
  unaccounted in each. `unaccounted_rows` are the faulty rows: one that is nowhere counts in the line of rows alone, one that is bridged
  with other money in the line of its currency, so that their sum is the number of faulty rows.
#}
{% macro recon_parity_lines(groups) -%}
    select
        l.batch,
        l.entity,
        l.unit,
        sum(l.amount) as source,
        coalesce(sum(l.amount) filter (where l.category = 'bridged'), 0) as bridged,
        coalesce(sum(l.amount) filter (where l.category = 'merged'), 0) as merged,
        coalesce(sum(l.amount) filter (where l.category = 'queued'), 0) as queued,
        coalesce(sum(l.amount) filter (where l.category = 'excluded'), 0) as excluded,
        coalesce(sum(l.amount) filter (where l.category = 'unaccounted'), 0) as unaccounted,
        sum(l.faulty) as unaccounted_rows,
        max(t.rows) filter (where l.unit = 'rows') as target,
        jsonb_object_agg(l.category || ': ' || l.reason, l.amount) filter (where l.reason is not null) as reasons
    from (
        select
            g.batch, g.entity, 'rows' as unit, g.category, g.reason,
            sum(g.rows) as amount,
            count(*) filter (where g.category = 'unaccounted') as faulty
        from {{ groups }} as g
        group by g.batch, g.entity, g.category, g.reason

        union all

        select
            g.batch, g.entity, g.currency_code as unit, g.money_category as category, g.money_reason as reason,
            sum(g.amount) as amount,
            count(*) filter (where g.money_category = 'unaccounted' and g.category <> 'unaccounted') as faulty
        from {{ groups }} as g
        where g.amount is not null
        group by g.batch, g.entity, g.currency_code, g.money_category, g.money_reason
    ) as l
    left join targets as t on l.entity = t.entity
    group by l.batch, l.entity, l.unit
{%- endmacro %}

{#
  The CTEs that `recon_global_rows` reads. `batches`: those whose rows the view asks for, as constants (the others' are
  then not even computed); none: the view has a CTE `asked` of its own.
#}
{% macro recon_global_ctes(batches=none) -%}
    {%- if batches %}
    asked as (
        select a.batch
        from (values ('{{ batches | join("'), ('") }}')) as a (batch)
    ),

    {% endif -%}
    {%- set in_question -%}
        {%- if batches -%} in ('{{ batches | join("', '") }}') {%- else -%} in (select a.batch from asked as a) {%- endif -%}
    {%- endset -%}
    groups as materialized (
        select * from {{ ref('recon_groups') }}
        where batch {{ in_question }}
    ),

    targets as materialized (
        select * from {{ ref('recon_targets') }}
        where entity = 'bookings' or batch {{ in_question }}
    ),

    parity as materialized (
        {{ recon_parity_lines('groups') }}
    ),

    findings as materialized (
        select * from {{ ref('recon_findings') }}
        where batch {{ in_question }}
    ),

    duplicates as materialized (
        select * from {{ ref('recon_duplicate_bookings') }}
    )
{%- endmacro %}

{# Every batch's view speaks of its gates in rows of one shape; these make one of each kind. #}
{% macro recon_measure_rows(measured) -%}
    select
        'measure'::text as kind,
        m.gate_id::text as gate_id,
        m.numerator::numeric as numerator,
        m.denominator::numeric as denominator,
        m.value::numeric as value,
        null::text as entity,
        null::text as key,
        null::text as status,
        null::boolean as is_counted,
        m.detail::jsonb as detail
    from {{ measured }} as m
{%- endmacro %}

{% macro recon_exception_rows(exceptions) -%}
    select
        'exception'::text as kind,
        e.gate_id::text as gate_id,
        null::numeric as numerator,
        null::numeric as denominator,
        null::numeric as value,
        e.entity::text as entity,
        e.key::text as key,
        e.status::text as status,
        e.is_counted,
        e.detail::jsonb as detail
    from {{ exceptions }} as e
{%- endmacro %}

{# A batch's view as it is now, with the time and the run that read it. #}
{% macro recon_reading(recon) -%}
    select
        r.kind,
        r.gate_id,
        r.numerator,
        r.denominator,
        r.value,
        r.entity,
        r.key,
        r.status,
        r.is_counted,
        r.detail,
        now() as read_at,
        (select c.run_id from {{ source('phase2', 'run_context') }} as c) as run_id
    from {{ recon }} as r
{%- endmacro %}

{#
  The global gates and the required queries of a view, out of its CTEs `asked` (the batches whose rows are asked for),
  `groups`, `parity`, `findings` and `duplicates` (each read once, and made once): measures and exceptions of G-01, G-02
  and G-08, the lines of the parity table, the findings.
#}
{% macro recon_global_rows() -%}
    {{ recon_measure_rows('(' ~ recon_global_measures() ~ ')') }}

    union all

    {{ recon_exception_rows('(' ~ recon_global_exceptions() ~ ')') }}

    union all

    select
        'parity' as kind, null as gate_id, null as numerator, null as denominator, null as value,
        p.entity, p.unit as key, null as status, null as is_counted,
        to_jsonb(p) as detail
    from parity as p

    union all

    select
        'finding' as kind, f.query as gate_id, null as numerator, null as denominator, null as value,
        f.entity, f.key, f.status, null as is_counted, f.detail
    from findings as f
{%- endmacro %}

{% macro recon_global_measures() -%}
    select
        'G-01' as gate_id,
        (select count(*) from duplicates) as numerator,
        c.rows as denominator,
        (select count(*) from duplicates) as value,
        null::jsonb as detail
    from targets as c
    where c.entity = 'bookings'

    union all

    select
        'G-02' as gate_id,
        m.numerator,
        b.denominator,
        m.numerator / nullif(b.denominator, 0)::numeric as value,
        null as detail
    from (select count(distinct (f.entity, f.key)) as numerator from findings as f where f.is_bridge_row) as m
    cross join (
        select coalesce(sum(t.rows), 0) as denominator from targets as t
        where
            t.entity in ('products', 'variants', 'bookings', 'payments')
            and t.batch in (select a.batch from asked as a)
    ) as b

    union all

    select
        'G-08' as gate_id,
        coalesce(sum(p.unaccounted_rows), 0) as numerator,
        coalesce(sum(p.source) filter (where p.unit = 'rows' and p.entity <> 'landed tables'), 0) as denominator,
        coalesce(sum(p.unaccounted_rows), 0) as value,
        null as detail
    from parity as p
{%- endmacro %}

{% macro recon_global_exceptions() -%}
    select 'G-01' as gate_id, d.entity, d.key::text as key, d.status, true as is_counted, d.detail
    from duplicates as d

    union all

    select
        'G-02' as gate_id, f.entity, f.key,
        string_agg(distinct f.status, ', ') as status,
        true as is_counted,
        null as detail
    from findings as f
    where f.is_bridge_row
    group by f.entity, f.key

    union all

    select
        'G-08' as gate_id, g.entity, g.faulty_key as key,
        case
            when g.entity = 'landed tables' then 'LANDED_ROWS_LOST'
            when g.category = 'unaccounted' then 'UNACCOUNTED'
            else 'MONEY_DIFFERS'
        end as status,
        true as is_counted,
        jsonb_strip_nulls(jsonb_build_object(
            'rows', g.rows, 'currency_code', g.currency_code, 'amount', g.amount, 'reason', g.reason
        )) as detail
    from groups as g
    where g.faulty_key is not null
{%- endmacro %}
