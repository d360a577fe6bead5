{#-
  Everything of the sources that the catalog has no column for, one row per source row (mapping 3.5). What belongs to
  a source row that may go (images, itineraries, rate plans) goes with it; the rest stays with its product.
-#}
{{
    config(
        table='source_leftovers',
        into_schema='phase2',
        key='leftover_key',
        remove_where=(
            "t.source_table in ('TourImage', 'VariantItinerary', 'VariantRatePlan', 'tour_images', 'tour_itineraries')"
        )
    )
}}

{%- set carried = {
    'TourProduct': [
        'product_id', 'product_name', 'slug', 'short_description', 'description', 'category', 'country_code', 'region',
        'base_meeting_point', 'is_featured', 'is_active', 'thumbnail_url', 'color_code', 'priority'
    ],
    'TourVariant': [
        'variant_id', 'product_id', 'variant_code', 'variant_name', 'service_type', 'duration_days', 'duration_nights',
        'min_pax', 'max_pax', 'currency_code', 'is_default', 'is_active', 'booking_cutoff_hours', 'cancellation_policy'
    ],
    'VariantRatePlan': [
        'rate_plan_id', 'variant_id', 'traveler_type', 'price', 'currency_code', 'min_quantity', 'max_quantity',
        'valid_from', 'valid_to', 'is_active'
    ]
} %}
{%- set tables = [
    ('balisnap', 'TourProduct', 'product_id'),
    ('balisnap', 'TourVariant', 'variant_id'),
    ('balisnap', 'VariantRatePlan', 'rate_plan_id'),
    ('balisnap', 'VariantItinerary', 'itinerary_id'),
    ('balisnap', 'TourPackage', 'package_id'),
    ('balisnap', 'TourImage', 'image_id'),
    ('bstadmin', 'tours', 'tour_id'),
    ('bstadmin', 'tour_packages', 'package_id'),
    ('bstadmin', 'tour_images', 'image_id'),
    ('bstadmin', 'tour_itineraries', 'itinerary_id')
] %}

with leftovers as (

    {% for system, table, id in tables %}
        select
            '{{ system }}' as source_system,
            '{{ table }}' as source_table,
            t.{{ id }}::text as source_pk,
            to_jsonb(t) - '{{ "{" ~ carried.get(table, [id]) | join(", ") ~ "}" }}'::text[] as attributes
        from {{ source(system, table) }} as t
        {{ 'union all' if not loop.last }}
    {% endfor %}

),

final as (

    select
        {{ function('named_key') }}(
            'product', 'leftover:' || source_system || ':' || source_table || ':' || source_pk
        ) as leftover_key,
        source_system,
        source_table,
        source_pk,
        attributes
    from leftovers

)

select * from final
