{#- Of a booking that no source has any more the items stay; of one that is newer in the bridge too. -#}
{{
    config(
        key='booking_item_key',
        remove_where="""
            exists (
                select 1 from {{ ref('int_booking_identities') }} as i
                where i.booking_key = t.booking_key and not i.fill_only
            )
        """
    )
}}
-- depends_on: {{ ref('booking_core') }}
-- depends_on: {{ ref('int_booking_identities') }}

select
    booking_item_key,
    booking_key,
    variant_key,
    variant_external_id,
    departure_external_id,
    currency_code,
    adult_qty,
    child_qty,
    infant_qty,
    adult_unit_price,
    child_unit_price,
    discount_amount,
    tax_amount,
    total_amount,
    snapshot_json,
    only_fills as fill_only
from {{ ref('int_booking_items') }}
where is_wanted
