-- Gate D-01. Grain: one bridge row of an identity that the sources know and that more than one bridge row stands for:
-- found by the identity itself, by the normal form of the bridge's ref, or by the ref with the source's id.
-- `position` 1 is the row that may stay.
with found as (
    select channel_code, external_booking_ref, key_by_identity, key_by_source_id
    from {{ ref('recon_source_identities') }}
),

by_normal_form as (
    select
        booking_key,
        channel_code,
        {{ recon_norm_ref('external_booking_ref') }} as ref
    from {{ source('bridge', 'booking_core') }}
    where external_booking_ref is distinct from {{ recon_norm_ref('external_booking_ref') }}
),

written_twice as (
    select channel_code, external_booking_ref
    from {{ source('bridge', 'booking_core') }}
    group by channel_code, external_booking_ref
    having count(*) > 1
),

others as (
    select channel_code, external_booking_ref, key_by_source_id as booking_key
    from found
    where key_by_source_id <> key_by_identity or (key_by_identity is null and key_by_source_id is not null)

    union

    select found.channel_code, found.external_booking_ref, by_normal_form.booking_key
    from found
    inner join by_normal_form
        on found.channel_code = by_normal_form.channel_code and found.external_booking_ref = by_normal_form.ref

    union

    select found.channel_code, found.external_booking_ref, found.key_by_identity as booking_key
    from found
    inner join written_twice
        on
            found.channel_code = written_twice.channel_code
            and found.external_booking_ref = written_twice.external_booking_ref
),

pairs as (
    select channel_code, external_booking_ref, booking_key from others

    union

    select found.channel_code, found.external_booking_ref, found.key_by_identity as booking_key
    from found
    inner join (select distinct channel_code, external_booking_ref from others) as questioned
        on
            found.channel_code = questioned.channel_code
            and found.external_booking_ref = questioned.external_booking_ref
    where found.key_by_identity is not null
)

select
    channel_code,
    external_booking_ref,
    booking_key,
    row_number() over (partition by channel_code, external_booking_ref order by booking_key) as position
from pairs
