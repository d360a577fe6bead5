-- Mapping 4: every booking with a candidate has its contact, party, ops state and at least one item.
-- depends_on: {{ ref('booking_contact') }}
-- depends_on: {{ ref('booking_party') }}
-- depends_on: {{ ref('booking_item_snapshot') }}
-- depends_on: {{ ref('ops_booking_state') }}
select identities.booking_key
from {{ ref('int_booking_identities') }} as identities
left join {{ source('bridge', 'booking_contact') }} as contacts on identities.booking_key = contacts.booking_key
left join {{ source('bridge', 'booking_party') }} as parties on identities.booking_key = parties.booking_key
left join {{ source('bridge', 'ops_booking_state') }} as states on identities.booking_key = states.booking_key
where
    contacts.booking_key is null
    or parties.booking_key is null
    or states.booking_key is null
    or not exists (
        select 1 from {{ source('bridge', 'booking_item_snapshot') }} as items
        where items.booking_key = identities.booking_key
    )
