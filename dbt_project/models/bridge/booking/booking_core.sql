{#- How fresh the sources are of which a booking now shows the values: an event asks for it (mapping 4.13). -#}
{{
    config(
        key='booking_key',
        post_hook="""
            insert into {{ source('phase2', 'booking_source_times') }} as t (booking_key, source_updated_at)
            select
                i.booking_key,
                i.latest_updated_at
            from {{ ref('int_booking_identities') }} as i
            left join {{ source('phase2', 'booking_source_times') }} as held on i.booking_key = held.booking_key
            where i.latest_updated_at is distinct from held.source_updated_at and i.latest_updated_at is not null
                and {{ in_range('i.booking_key') }}
            on conflict (booking_key) do update set source_updated_at = excluded.source_updated_at
        """
    )
}}
-- depends_on: {{ ref('int_booking_identities') }}
-- depends_on: {{ ref('catalog_external_refs') }}

-- What a newer bridge keeps (mapping 4.13) is already in the values.
select
    booking_key,
    channel_code,
    source_enum_compat,
    external_booking_ref,
    booking_created_at,
    booking_date,
    tour_date,
    tour_time,
    currency_code,
    total_price,
    number_of_adult,
    number_of_child,
    customer_payment_status,
    ops_fulfillment_status,
    package_ref_type,
    package_ref_key,
    legacy_package_id,
    note
from {{ ref('int_booking_cores') }}
