{{ config(key='variant_rate_key', remove_where='true') }}
-- depends_on: {{ ref('catalog_variant') }}

{%- set columns -%}
    variant_rate_key,
    variant_key,
    traveler_type,
    currency_code,
    price,
    min_quantity,
    max_quantity,
    valid_from,
    valid_to,
    is_active
{%- endset %}

with rates as (

    select * from {{ ref('int_catalog_rates') }}

),

in_bridge as (

    select * from {{ source('bridge', 'catalog_variant_rate') }}

),

package_targets as (

    select * from {{ ref('int_catalog_packages') }}

),

-- The product that a package was before it was mapped stays, and so does its price: the package is still there, and
-- a variant without a rate fails gate C-03. Every other rate that the sources no longer carry is removed.
former_own_rates as (

    select in_bridge.*
    from in_bridge
    inner join package_targets
        on in_bridge.variant_key = package_targets.own_variant_key and package_targets.outcome <> 'OWN'

),

final as (

    select {{ columns | indent(4) }}
    from rates

    union all

    select {{ columns | indent(4) }}
    from former_own_rates

)

select * from final
