with sources as (
    select
        count(*) as source_bookings,
        count(*) filter (where key_by_identity is null and not is_queued) as unbridged,
        count(distinct (channel_code, external_booking_ref)) as identities
    from {{ ref('recon_source_identities') }}
),

cores as (
    select
        count(*) as bookings,
        count(*) filter (
            where
            cores.channel_code is null
            or channels.channel_code is null
            or nullif(btrim(cores.external_booking_ref), '') is null
        ) as without_identity,
        count(*) filter (
            where
            cores.package_ref_type is null
            or types.type_code is null
            or (cores.package_ref_type <> 'LEGACY_PACKAGE' and cores.package_ref_key is null)
        ) as without_type,
        count(*) filter (
            where cores.number_of_adult + cores.number_of_child is distinct from items.travellers
        ) as other_head_count
    from {{ source('bridge', 'booking_core') }} as cores
    left join {{ source('bridge', 'channel_registry') }} as channels on cores.channel_code = channels.channel_code
    left join (
        select c.code as type_code from {{ ref('recon_dictionaries') }} as c
        where c.dictionary = 'ref_package_ref_type' and c.is_found
    ) as types on cores.package_ref_type = types.type_code
    left join (
        select i.booking_key, sum(i.adult_qty + i.child_qty) as travellers
        from {{ source('bridge', 'booking_item_snapshot') }} as i
        group by i.booking_key
    ) as items on cores.booking_key = items.booking_key
),

measured as (
    select
        'D-01' as gate_id,
        (
            select count(*) - count(distinct (c.channel_code, c.external_booking_ref))
            from {{ ref('recon_identity_collisions') }} as c
        ) as numerator,
        s.identities as denominator,
        jsonb_build_object(
            'source_bookings', s.source_bookings, 'identities', s.identities, 'bridge_rows', c.bookings
        ) as detail
    from sources as s
    cross join cores as c

    union all

    select 'D-02' as gate_id, without_identity as numerator, bookings as denominator, null as detail from cores

    union all

    select 'D-03' as gate_id, other_head_count as numerator, bookings as denominator, null as detail from cores

    union all

    select 'D-04' as gate_id, without_type as numerator, bookings as denominator, null as detail from cores

    union all

    select 'D-05' as gate_id, unbridged as numerator, source_bookings as denominator, null as detail from sources

    union all

    select
        'D-06' as gate_id,
        (select count(*) from {{ ref('recon_unsourced_bookings') }} as u where not u.is_reviewed) as numerator,
        bookings as denominator,
        null as detail
    from cores
)

select
    gate_id::text as gate_id,
    numerator::numeric as numerator,
    denominator::numeric as denominator,
    case gate_id when 'D-03' then numerator::numeric / nullif(denominator, 0) else numerator end as value,
    detail
from measured
