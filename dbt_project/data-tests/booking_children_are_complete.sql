-- Mapping 4: every booking with a candidate has its contact, party, ops state and at least one item.
-- depends_on: {{ ref('booking_contact') }}
-- depends_on: {{ ref('booking_party') }}
-- depends_on: {{ ref('booking_item_snapshot') }}
-- depends_on: {{ ref('ops_booking_state') }}
-- Each by itself: these joins then hash the few bookings that were computed, not the tables.
{%- for child in ['booking_contact', 'booking_party', 'ops_booking_state', 'booking_item_snapshot'] %}
    select identities.booking_key
    from {{ ref('int_booking_identities') }} as identities
    where
        not exists (
            select 1 from {{ source('bridge', child) }} as t
            where t.booking_key = identities.booking_key
        )
    {%- if not loop.last %}

        union all

    {% endif %}
{%- endfor %}
