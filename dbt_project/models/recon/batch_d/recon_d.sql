-- What the verdict of batch D reads: measures, exceptions, parity and findings, in one reading of the database.
-- It reads the bridge as it is; in a build of the whole project it comes after the models that write it:
-- depends_on: {{ ref('booking_contact') }}
-- depends_on: {{ ref('booking_core') }}
-- depends_on: {{ ref('booking_external_refs') }}
-- depends_on: {{ ref('booking_item_snapshot') }}
-- depends_on: {{ ref('booking_party') }}
-- depends_on: {{ ref('booking_queue') }}
-- depends_on: {{ ref('ops_assignment') }}
-- depends_on: {{ ref('ops_booking_state') }}
{{ config(twin='composite') }}

with{{ recon_global_ctes(['C', 'D']) }},

-- every landed booking: what its source calls it, and where the bridge has it
identities as materialized (
    select * from {{ ref('recon_source_identities') }}
),

-- D-01: an identity that the sources know and that another bridge row stands for too: one that a source's id leads to,
-- one whose ref is another spelling, one with the very same identity (should the unique index be gone)
other_spellings as (
    select
        booking_key,
        channel_code,
        {{ recon_norm_ref('external_booking_ref') }} as ref
    from {{ source('bridge', 'booking_core') }}
    where external_booking_ref is distinct from {{ recon_norm_ref('external_booking_ref') }}
),

written_twice as (
    select
        channel_code,
        external_booking_ref
    from {{ source('bridge', 'booking_core') }}
    group by channel_code, external_booking_ref
    having count(*) > 1
),

others as materialized (
    select
        channel_code,
        external_booking_ref,
        key_by_source_id as booking_key
    from identities
    where key_by_source_id <> key_by_identity or (key_by_identity is null and key_by_source_id is not null)

    union

    select
        i.channel_code,
        i.external_booking_ref,
        s.booking_key
    from identities as i
    inner join other_spellings as s on i.channel_code = s.channel_code and i.external_booking_ref = s.ref

    union

    select
        i.channel_code,
        i.external_booking_ref,
        i.key_by_identity as booking_key
    from identities as i
    inner join written_twice as w
        on i.channel_code = w.channel_code and i.external_booking_ref = w.external_booking_ref
),

questioned as (
    select distinct
        channel_code,
        external_booking_ref
    from others
),

collisions as materialized (
    select
        p.channel_code,
        p.external_booking_ref,
        p.booking_key,
        row_number() over (partition by p.channel_code, p.external_booking_ref order by p.booking_key) as position
    from (
        select
            channel_code,
            external_booking_ref,
            booking_key
        from others

        union

        select
            i.channel_code,
            i.external_booking_ref,
            i.key_by_identity as booking_key
        from identities as i
        inner join questioned as q
            on i.channel_code = q.channel_code and i.external_booking_ref = q.external_booking_ref
        where i.key_by_identity is not null
    ) as p
),

-- D-06: bridge bookings that no landed booking and no event accounts for, and whether a person has them to review
sourced as (
    select key_by_identity as booking_key from identities
    where key_by_identity is not null

    union all

    select key_by_source_id as booking_key
    from identities
    where key_by_source_id <> key_by_identity or (key_by_identity is null and key_by_source_id is not null)
),

reviewed as (
    select distinct q.source_pk
    from {{ source('bridge', 'unmapped_queue') }} as q
    where
        q.source_system = 'canonical' and q.source_table = 'booking_identity'
        and q.queue_type = 'BOOKING_REVIEW' and q.reason_code = 'NO_MATCH'
        and {{ recon_queue_stands('q') }}
),

unsourced as materialized (
    select
        c.booking_key,
        c.channel_code,
        c.external_booking_ref,
        r.source_pk is not null as is_reviewed
    from {{ source('bridge', 'booking_core') }} as c
    left join (
        select distinct
            l.channel_code,
            l.external_booking_ref
        from {{ source('bridge', 'ingest_event_log') }} as l
    ) as e on c.channel_code = e.channel_code and c.external_booking_ref = e.external_booking_ref
    left join {{ source('phase2', 'booking_freshness') }} as f on c.booking_key = f.booking_key
    left join reviewed as r on left(c.channel_code || ':' || c.external_booking_ref, 128) = r.source_pk
    where
        not exists (
            select 1 from sourced as s
            where s.booking_key = c.booking_key
        )
        and e.channel_code is null
        and f.last_event_time is null
),

sources as (
    select
        count(*) as source_bookings,
        count(*) filter (where key_by_identity is null and not is_queued) as unbridged
    from identities
),

distinct_identities as (
    select count(*) as identities
    from
        (select
            i.channel_code,
            i.external_booking_ref
        from identities as i
        group by i.channel_code, i.external_booking_ref) as d
),

cores as (
    select
        count(*) as bookings,
        count(*) filter (
            where
            cores.channel_code is null
            or channels.channel_code is null
            or {{ recon_is_blank_ref('cores.external_booking_ref') }}
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
        select
            i.booking_key,
            sum(i.adult_qty + i.child_qty) as travellers
        from {{ source('bridge', 'booking_item_snapshot') }} as i
        group by i.booking_key
    ) as items on cores.booking_key = items.booking_key
),

counted as (
    select
        'D-01' as gate_id,
        (
            select count(*) from collisions as l
            where l.position > 1
        ) as numerator,
        d.identities as denominator,
        jsonb_build_object(
            'source_bookings', s.source_bookings, 'identities', d.identities, 'bridge_rows', c.bookings
        ) as detail
    from sources as s
    cross join distinct_identities as d
    cross join cores as c

    union all

    select
        'D-02' as gate_id,
        without_identity as numerator,
        bookings as denominator,
        null as detail
    from cores

    union all

    select
        'D-03' as gate_id,
        other_head_count as numerator,
        bookings as denominator,
        null as detail
    from cores

    union all

    select
        'D-04' as gate_id,
        without_type as numerator,
        bookings as denominator,
        null as detail
    from cores

    union all

    select
        'D-05' as gate_id,
        unbridged as numerator,
        source_bookings as denominator,
        null as detail
    from sources

    union all

    select
        'D-06' as gate_id,
        (
            select count(*) from unsourced as u
            where not u.is_reviewed
        ) as numerator,
        bookings as denominator,
        null as detail
    from cores
),

measured as (
    select
        r.gate_id,
        r.numerator,
        r.denominator,
        case r.gate_id when 'D-03' then r.numerator::numeric / nullif(r.denominator, 0) else r.numerator end as value,
        r.detail
    from counted as r
),

exceptions as (
    select
        'D-01'::text as gate_id,
        'booking'::text as entity,
        concat_ws(':', c.booking_key, c.channel_code, c.external_booking_ref) as key,
        'DUPLICATE_IDENTITY'::text as status,
        true as is_counted,
        jsonb_build_object('channel_code', c.channel_code, 'external_booking_ref', c.external_booking_ref) as detail
    from collisions as c
    where c.position > 1

    union all

    select
        'D-02' as gate_id,
        'booking' as entity,
        cores.booking_key::text as key,
        case
            when cores.channel_code is null then 'CHANNEL_NULL'
            when channels.channel_code is null then 'CHANNEL_UNKNOWN'
            else 'REF_NULL'
        end as status,
        true as is_counted,
        jsonb_build_object('channel_code', cores.channel_code, 'external_booking_ref', cores.external_booking_ref)
            as detail
    from {{ source('bridge', 'booking_core') }} as cores
    left join {{ source('bridge', 'channel_registry') }} as channels on cores.channel_code = channels.channel_code
    where channels.channel_code is null or {{ recon_is_blank_ref('cores.external_booking_ref') }}

    union all

    select
        'D-03' as gate_id,
        h.entity,
        h.key::text as key,
        h.status,
        true as is_counted,
        h.detail
    from findings as h
    where h.query = 'recon_head_counts'

    union all

    select
        'D-04' as gate_id,
        'booking' as entity,
        cores.booking_key::text as key,
        case
            when cores.package_ref_type is null then 'TYPE_NULL'
            when types.code is null then 'TYPE_UNKNOWN'
            else 'TYPE_WITHOUT_KEY'
        end as status,
        true as is_counted,
        jsonb_build_object(
            'external_booking_ref', cores.external_booking_ref, 'package_ref_type', cores.package_ref_type
        ) as detail
    from {{ source('bridge', 'booking_core') }} as cores
    left join {{ ref('recon_dictionaries') }} as types
        on
            types.dictionary = 'ref_package_ref_type'
            and types.is_found
            and cores.package_ref_type = types.code
    where
        types.code is null
        or (cores.package_ref_type <> 'LEGACY_PACKAGE' and cores.package_ref_key is null)

    union all

    select
        'D-05' as gate_id,
        'booking' as entity,
        concat_ws(':', s.source_system, s.source_table, s.booking_id) as key,
        case
            when s.is_queued then 'QUEUED'
            when s.key_by_source_id is not null then 'OTHER_IDENTITY'
            else 'NO_IDENTITY'
        end as status,
        not s.is_queued as is_counted,
        jsonb_build_object('channel_code', s.channel_code, 'external_booking_ref', left(s.external_booking_ref, 128))
            as detail
    from identities as s
    where s.key_by_identity is null

    union all

    select
        'D-06' as gate_id,
        'booking' as entity,
        u.booking_key::text as key,
        case when u.is_reviewed then 'UNDER_REVIEW' else 'NO_SOURCE' end as status,
        not u.is_reviewed as is_counted,
        jsonb_build_object('channel_code', u.channel_code, 'external_booking_ref', u.external_booking_ref) as detail
    from unsourced as u
)

{{ recon_measure_rows('measured') }}

union all

{{ recon_exception_rows('exceptions') }}

union all

{{ recon_global_rows() }}
