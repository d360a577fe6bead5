{{ config(table='unmapped_queue', key='queue_key') }}

with wanted as (

    select * from {{ ref('int_catalog_queue') }}

),

existing as (

    select * from {{ source('bridge', 'unmapped_queue') }}
    where
        queue_type in ('PRODUCT_MAPPING', 'VARIANT_MAPPING', 'CATALOG_EXTENDED_METADATA')
        and source_system in ('balisnap', 'bstadmin')

),

final as (

    {{ queue_lifecycle('wanted', 'existing') }}

)

select * from final
