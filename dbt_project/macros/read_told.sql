{#
  What each source of a booking says, as landed and normalised by the rules that made the core: the value of an
  OTHER_SOURCE has to be among it. One row a booking of `numbers` (booking_key, kind of the number, booking_id); told: a
  list of objects field -> value, times in UTC, of the booking in either source, its items and its payments; note_lines
  are the lines that a note may be made of, as one source's or with the sources named (mapping 4.4).
#}
{% macro read_told(numbers) -%}
    select
        said.booking_key,
        jsonb_agg(said.told) || jsonb_build_array(
            jsonb_build_object('note_lines', string_to_array(string_agg(said.note, E'\n'), E'\n'))
        ) as told
    from (
        select
            n.booking_key,
            jsonb_strip_nulls(jsonb_build_object(
                {{ read_told_of_both() }},
                'booked_on', {{ function('bali_date') }}(b.created_at),
                'tour_date', b.travel_day,
                'pickup_location', b.meeting_point, -- stands in for one (mapping 4.6)
                'is_paid', {{ function('balisnap_status_payment') }}(b.status_v2, b.status) = 'PAID'
            )) || '{"tour_time": null}' as told,
            '[balisnap] ' || b.note || E'\n' || b.note as note
        from {{ numbers }} as n
        inner join {{ ref('stg_balisnap__bookings') }} as b on n.booking_id = b.booking_id
        where n.kind = 'BALISNAP_BOOKING_ID'
        union all
        select
            n.booking_key,
            jsonb_strip_nulls(jsonb_build_object(
                {{ read_told_of_both() }},
                'booked_on', b.received_on,
                'tour_date', b.tour_date,
                'pickup_location', b.pickup_location,
                'is_paid', b.is_paid
            )) || jsonb_build_object(
                'tour_time', to_char(b.tour_time, 'HH24:MI'), 'paid_at', b.paid_at at time zone 'UTC'
            ),
            '[bstadmin] ' || b.note || E'\n' || b.note
        from {{ numbers }} as n
        inner join {{ ref('stg_bstadmin__bookings') }} as b on n.booking_id = b.booking_id
        where n.kind = 'BSTADMIN_BOOKING_ID'
        union all
        -- a departure tells the day and its time; midnight in Bali is no time (mapping 4.5)
        select
            n.booking_key,
            jsonb_build_object(
                'tour_date', {{ function('bali_date') }}(d.starts_at),
                'tour_time', nullif(to_char(d.starts_at at time zone 'Asia/Makassar', 'HH24:MI'), '00:00')
            ),
            null
        from {{ numbers }} as n
        inner join {{ ref('stg_balisnap__booking_items') }} as i on n.booking_id = i.booking_id
        inner join {{ ref('stg_balisnap__departures') }} as d on i.departure_id = d.departure_id
        where n.kind = 'BALISNAP_BOOKING_ID'
        union all
        -- the sum of the items that are carried (mapping 4.5, 4.9)
        select
            n.booking_key,
            jsonb_build_object(
                'total_price',
                greatest({{ function('norm_money') }}(
                    coalesce(sum(i.total_amount) filter (where not i.is_cancelled), sum(i.total_amount))
                ), 0)
            ),
            null
        from {{ numbers }} as n
        inner join {{ ref('stg_balisnap__booking_items') }} as i on n.booking_id = i.booking_id
        where n.kind = 'BALISNAP_BOOKING_ID'
        group by n.booking_key, n.booking_id
        union all
        select
            n.booking_key,
            case
                when
                    {{ function('payment_status') }}(p.payment_status_v2, p.payment_status)
                    in ('PAID', 'PARTIALLY_REFUNDED')
                    then jsonb_build_object('is_paid', true, 'paid_at', p.payment_date at time zone 'UTC')
                else '{"is_paid": false}'
            end,
            null
        from {{ numbers }} as n
        inner join {{ ref('stg_balisnap__payments') }} as p on n.booking_id = p.booking_id
        where n.kind = 'BALISNAP_BOOKING_ID'
    ) as said
    group by said.booking_key
{%- endmacro %}

{# What a booking says of itself in the same words in either source. #}
{% macro read_told_of_both() -%}
    'created_at', b.created_at at time zone 'UTC',
    'customer_name', left(b.main_name, 191),
    'customer_email', left(b.main_email, 191),
    'customer_phone', left(b.phone, 64),
    'meeting_point', b.meeting_point,
    'adults', {{ function('norm_count') }}(b.number_of_adult),
    'children', {{ function('norm_count') }}(b.number_of_child),
    'currency', {{ function('norm_currency') }}(b.currency_code),
    'total_price', greatest({{ function('norm_money') }}(b.total_price), 0),
    'package_id', b.package_id
{%- endmacro %}

{# The numbers of the bookings in their sources. #}
{% macro read_numbers() -%}
    select
        refs.entity_key as booking_key,
        refs.external_ref_kind as kind,
        refs.external_ref::bigint as booking_id
    from {{ source('bridge', 'channel_external_refs') }} as refs
    where
        refs.entity_type = 'BOOKING'
        and refs.external_ref_kind in ('BSTADMIN_BOOKING_ID', 'BALISNAP_BOOKING_ID')
        and refs.external_ref ~ '^[0-9]{1,10}$'
{%- endmacro %}
