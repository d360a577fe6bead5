-- Grain: one landed table. The rows that the last landing committed against those that are there now: unlogged tables
-- are empty after a crash of the server, and an empty source would make every gate look good. What no landing is known
-- of (null) is not as it was landed either.
{%- set tables = {
    'balisnap': [
        'TourPackage', 'TourImage', 'TourProduct', 'TourVariant', 'VariantRatePlan', 'VariantItinerary', 'Departure',
        'Booking', 'BookingItem', 'BookingTraveler', 'Payment'
    ],
    'bstadmin': [
        'tours', 'tour_packages', 'tour_images', 'tour_itineraries', 'bookings', 'booking_finances',
        'booking_finance_items'
    ]
} %}
with present as (
    {%- for system, names in tables.items() %}
        {%- for name in names %}
            select
                '{{ system }}' as source_system,
                '{{ name }}' as table_name,
                count(*) as present_rows
            from {{ source(system, name) }}
            {%- if not loop.last %}

                union all

            {%- endif %}
        {%- endfor %}
    {%- if not loop.last %}

            union all

        {%- endif %}
    {%- endfor %}
),

latest as (
    select distinct on (runs.source)
        runs.source,
        runs.landing_id
    from {{ source('phase2', 'landing_runs') }} as runs
    order by runs.source asc, runs.landing_no desc
)

select
    present.source_system,
    present.table_name,
    tables.row_count as landed_rows,
    present.present_rows
from present
left join latest on present.source_system = latest.source
left join {{ source('phase2', 'landing_tables') }} as tables
    on
        latest.landing_id = tables.landing_id
        and latest.source = tables.source
        and present.table_name = tables.table_name
