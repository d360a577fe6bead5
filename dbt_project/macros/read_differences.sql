{#
  What the pages of the back office show of a booking: each field with its type and the rules that may explain that the
  read model shows another value than bstadmin. A rule counts where the seed approved_differences says so.
#}
{% macro read_fields() -%}
    {{- return([
        ('channel', 'text', ['CHANNEL']),
        ('reference', 'text', ['REF', 'MADE_UP_REF']),
        ('created_at', 'timestamptz', ['INSTANT', 'EARLIER']),
        ('booked_on', 'date', ['OTHER_SOURCE']),
        ('tour_date', 'date', ['OTHER_SOURCE_REVIEWED']),
        ('tour_time', 'text', ['TIME', 'OTHER_SOURCE', 'INGESTED']),
        ('customer_name', 'text', ['TEXT', 'OTHER_SOURCE', 'INGESTED']),
        ('customer_email', 'text', ['TEXT', 'OTHER_SOURCE', 'INGESTED']),
        ('customer_phone', 'text', ['PHONE', 'OTHER_SOURCE', 'INGESTED']),
        ('pickup_location', 'text', ['PLACE', 'OTHER_SOURCE', 'INGESTED']),
        ('meeting_point', 'text', ['PLACE', 'OTHER_SOURCE', 'INGESTED']),
        ('adults', 'integer', ['COUNT', 'OTHER_SOURCE', 'INGESTED']),
        ('children', 'integer', ['COUNT', 'OTHER_SOURCE', 'INGESTED']),
        ('currency', 'text', ['CURRENCY', 'OTHER_SOURCE', 'INGESTED']),
        ('total_price', 'numeric', ['MONEY', 'OTHER_SOURCE_REVIEWED', 'OTHER_SOURCE_CENT', 'OTHER_CURRENCY']),
        ('status', 'text', ['RECOMPUTED', 'OTHER_BOOKING']),
        ('is_paid', 'boolean', ['OTHER_SOURCE', 'INGESTED']),
        ('paid_at', 'timestamptz', ['INSTANT', 'UNPAID', 'OTHER_SOURCE', 'INGESTED']),
        ('package_id', 'bigint', ['OTHER_SOURCE']),
        ('driver_id', 'integer', ['OTHER_BOOKING']),
        ('board_driver_id', 'integer', ['NO_TIME', 'OTHER_BOOKING']),
        ('assigned_at', 'timestamptz', ['INSTANT', 'OTHER_BOOKING']),
        ('note', 'text', ['LINES', 'AMONG_OTHERS', 'INGESTED']),
        ('finance_id', 'bigint', ['OTHER_BOOKING']),
        ('pattern_id', 'bigint', ['OTHER_BOOKING']),
        ('validated_at', 'timestamptz', ['INSTANT', 'OTHER_BOOKING']),
        ('is_locked', 'boolean', ['OTHER_BOOKING']),
        ('settlement', 'text', ['OTHER_BOOKING'])
    ]) -}}
{%- endmacro %}

{#
  Whether a rule explains the difference. `l`: bstadmin's row, with `id`, `finance_items` and `unpaid_items`; `n`: the
  read model's, with `has_several` (several candidates, of either source), `has_twins` (of bstadmin), `is_reviewed` (a
  review lists what they disagree about, mapping 4.12), `told` (what its candidates say, macro read_told) and
  `is_ingested` (an event has told of it since, phase2.told_since). Where `told` is null nothing is proven.
#}
{% macro read_rule(rule, field, l, n) -%}
    {%- set old = l ~ '.' ~ field -%}
    {%- set new = n ~ '.' ~ field -%}
    {%- set utc = " at time zone 'UTC'" if field in ('created_at', 'paid_at') else '' -%}
    {%- set said -%}
        {{ n }}.has_several and {{ n }}.told @> jsonb_build_array(jsonb_build_object('{{ field }}', {{ new }}{{ utc }}))
    {%- endset -%}
    {%- if rule == 'CHANNEL' -%}
        {{ function('booking_channel') }}({{ old }}) = {{ new }}
    {%- elif rule == 'REF' -%}
        {{ function('norm_ref') }}({{ old }}) = {{ new }}
    {%- elif rule == 'MADE_UP_REF' -%}
        {{ function('norm_ref') }}({{ old }}) is null
        and {{ new }} in ('OPS-' || {{ l }}.id, 'OPS-' || {{ l }}.id || '-BSTADMIN')
    {%- elif rule == 'TEXT' -%}
        left({{ function('norm_text') }}({{ old }}), 191) is not distinct from {{ new }}
    {%- elif rule == 'PHONE' -%}
        left({{ function('norm_phone') }}({{ old }}), 64) is not distinct from {{ new }}
    {%- elif rule == 'PLACE' -%}
        {{ function('norm_place') }}({{ old }}) is not distinct from {{ new }}
    {%- elif rule == 'LINES' -%}
        {{ function('norm_lines') }}({{ old }}) is not distinct from {{ new }}
    {%- elif rule == 'TIME' -%}
        to_char({{ function('parse_tour_time') }}({{ old }}), 'HH24:MI') is not distinct from {{ new }}
    {%- elif rule == 'INSTANT' -%}
        not isfinite({{ old }}) and {{ new }} is null
    {%- elif rule == 'COUNT' -%}
        coalesce({{ function('norm_count') }}({{ old }}), 0) = {{ new }}
    {%- elif rule == 'CURRENCY' -%}
        {{ function('norm_currency') }}({{ old }}) = {{ new }}
    {%- elif rule == 'MONEY' -%}
        greatest(coalesce({{ function('norm_money') }}({{ old }}), 0), 0) = {{ new }}
    {%- elif rule == 'RECOMPUTED' -%}
        {#- no subquery of the row: with one no parallel worker could compute the differences -#}
        {{ new }} in (
            {%- for as_of in (function('current_as_of') ~ '()', "(now() at time zone 'Asia/Makassar')::date") %}
            {{ function('fulfilment_status') }}(
                {{ old }}, {{ l }}.finance_items, {{ l }}.unpaid_items, {{ l }}.validated_at,
                case when {{ n }}.has_several then {{ n }}.tour_date else {{ l }}.tour_date end, {{ as_of }},
                {{ l }}.driver_id, {{ l }}.pattern_id::integer
            ){{ ',' if not loop.last }}
            {%- endfor %}
        )
    {%- elif rule == 'UNPAID' -%}
        {{ new }} is null and not {{ n }}.is_paid
    {%- elif rule == 'OTHER_SOURCE' and field == 'tour_time' -%}
        {#- a time goes with its day, and only another day has none where bstadmin has one (mapping 4.4) -#}
        {{ n }}.has_several and ({{ new }} is not null or {{ n }}.tour_date <> {{ l }}.tour_date)
        and {{ n }}.told @> jsonb_build_array(jsonb_build_object('tour_time', {{ new }}, 'tour_date', {{ n }}.tour_date))
    {%- elif rule == 'OTHER_SOURCE' -%}
        {{ said }}
    {%- elif rule == 'INGESTED' -%}
        {{ n }}.has_several and {{ n }}.is_ingested
    {%- elif rule == 'OTHER_BOOKING' -%}
        {{ n }}.has_twins
    {%- elif rule == 'NO_TIME' -%}
        {{ new }} is null and {{ n }}.driver_id = {{ old }} and {{ n }}.assigned_at is null
    {%- elif rule == 'EARLIER' -%}
        {{ said }} and {{ new }} < {{ old }}
    {%- elif rule == 'AMONG_OTHERS' -%}
        {{ n }}.has_several and coalesce(position({{ function('norm_lines') }}({{ old }}) in {{ new }}) > 0, true)
        and {{ n }}.told @> jsonb_build_array(jsonb_build_object('note_lines', string_to_array({{ new }}, E'\n')))
    {%- elif rule == 'OTHER_SOURCE_REVIEWED' -%}
        {{ said }} and {{ n }}.is_reviewed
    {%- elif rule == 'OTHER_SOURCE_CENT' -%}
        {{ said }} and abs({{ old }} - {{ new }}) <= 0.01
    {%- elif rule == 'OTHER_CURRENCY' -%}
        {{ said }} and {{ function('norm_currency') }}({{ l }}.currency) <> {{ n }}.currency
    {%- else -%}
        {{ exceptions.raise_compiler_error('no rule ' ~ rule) }}
    {%- endif -%}
{%- endmacro %}

{#
  The fields of a booking that differ, as JSON: field -> [bstadmin's value, the read model's, the rule that explains it
  or null]; null when there is none. IGNORE leaves a field alone. `approved`: whether a rule is in force, as a condition
  with {} for its `field:RULE`.
#}
{% macro read_differences(l, n, approved) -%}
    nullif(
        jsonb_strip_nulls(jsonb_build_object(
        {%- for field, type, rules in read_fields() %}
            '{{ field }}',
            case
                when {{ l }}.{{ field }} is distinct from {{ n }}.{{ field }}
                    then jsonb_build_array(
                        {{ l }}.{{ field }}, {{ n }}.{{ field }},
                        case
                            when {{ approved.format(field ~ ':IGNORE') }} then 'IGNORE'
                            {%- for rule in rules %}
                            when
                                {{ approved.format(field ~ ':' ~ rule) }}
                                and {{ read_rule(rule, field, l, n) }}
                                then '{{ rule }}'
                            {%- endfor %}
                        end
                    )
            end{{ ',' if not loop.last }}
        {%- endfor %}
        )),
        '{}'
    )
{%- endmacro %}

{# The `field:RULE` that are approved today, one a row. What is ignored at will has a last day, or is not. #}
{% macro read_approved(relation) -%}
    select s.field || ':' || s.rule as approved
    from {{ relation }} as s
    where
        s.expires_on >= (now() at time zone 'Asia/Makassar')::date
        or (s.expires_on is null and s.rule <> 'IGNORE')
{%- endmacro %}
