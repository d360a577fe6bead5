{{ config(materialized='view') }} -- one model reads it, once
with travelers as (
    select * from {{ ref('stg_balisnap__booking_travelers') }}
),

items as (
    select
        booking_key,
        booking_item_id
    from {{ ref('int_booking_items') }}
    where booking_item_id is not null
)

-- Keys as the source's columns; times as UTC text, so that no session's time zone shows in them (mapping 4.10).
select
    items.booking_key,
    jsonb_agg(
        jsonb_build_object(
            'traveler_id', travelers.traveler_id,
            'booking_item_id', travelers.booking_item_id,
            'traveler_type', travelers.traveler_type,
            'title', travelers.title,
            'first_name', travelers.first_name,
            'last_name', travelers.last_name,
            'email', travelers.email,
            'phone', travelers.phone,
            'birth_date', travelers.birth_date,
            'nationality', travelers.nationality,
            'passport_number', travelers.passport_number,
            'special_request', travelers.special_request,
            'created_at', to_char(travelers.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
            'updated_at', to_char(travelers.updated_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
        )
        order by travelers.traveler_id
    ) as traveler_rows
from travelers
inner join items on travelers.booking_item_id = items.booking_item_id
group by items.booking_key
