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

faults as (
    select * from {{ ref('recon_core_faults') }}
),

-- landed bookings that are not where their identity leads to, by what their source calls them
strayed as materialized (
    select * from {{ ref('recon_source_identities') }}
    where key_by_identity is null or key_by_source_id <> key_by_identity
),

-- D-01: an identity that the sources know and that another bridge row stands for too: one that a source's id leads to,
-- one whose ref is another spelling, one with the very same identity (should the unique index be gone)
other_spellings as materialized (
    select
        key as booking_key,
        detail ->> 'channel_code' as channel_code,
        detail ->> 'ref' as ref
    from faults
    where gate_id = 'D-01'
),

written_twice as materialized (
    select distinct
        c.channel_code,
        c.external_booking_ref
    from duplicates as d
    inner join {{ source('bridge', 'booking_core') }} as c on d.key = c.booking_key
    where
        exists (
            select 1 from {{ source('bridge', 'booking_core') }} as o
            where
                o.channel_code = c.channel_code
                and o.external_booking_ref = c.external_booking_ref
                and o.booking_key <> c.booking_key
        )
),

-- what the sources say of the few identities that these ask about
asked_about as materialized (
    select
        i.channel_code,
        i.external_booking_ref,
        i.key_by_identity
    from {{ ref('recon_source_identities') }} as i
    where
        (i.channel_code, i.external_booking_ref) in (
            select
                s.channel_code,
                s.ref
            from other_spellings as s

            union all

            select
                w.channel_code,
                w.external_booking_ref
            from written_twice as w

            union all

            select
                n.channel_code,
                n.external_booking_ref
            from strayed as n
        )
),

others as materialized (
    select
        channel_code,
        external_booking_ref,
        key_by_source_id as booking_key
    from strayed
    where key_by_source_id is not null

    union

    select
        i.channel_code,
        i.external_booking_ref,
        s.booking_key
    from asked_about as i
    inner join other_spellings as s on i.channel_code = s.channel_code and i.external_booking_ref = s.ref

    union

    select
        i.channel_code,
        i.external_booking_ref,
        i.key_by_identity as booking_key
    from asked_about as i
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
        from asked_about as i
        inner join questioned as q
            on i.channel_code = q.channel_code and i.external_booking_ref = q.external_booking_ref
        where i.key_by_identity is not null
    ) as p
),

-- D-06: bridge bookings that no landed booking and no event accounts for, and whether a person has them to review
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
        u.booking_key,
        u.channel_code,
        u.external_booking_ref,
        r.source_pk is not null as is_reviewed
    from {{ ref('recon_unsourced') }} as u
    left join {{ source('phase2', 'booking_freshness') }} as f on u.booking_key = f.booking_key
    left join reviewed as r on left(u.channel_code || ':' || u.external_booking_ref, 128) = r.source_pk
    where
        f.last_event_time is null
        and not exists (
            select 1 from {{ source('bridge', 'ingest_event_log') }} as l
            where l.channel_code = u.channel_code and l.external_booking_ref = u.external_booking_ref
        )
),

sums as (
    select
        sum(i.source_bookings) as source_bookings,
        sum(i.unbridged) as unbridged,
        sum(i.identities) as identities
    from {{ ref('recon_identity_sums') }} as i
),

bookings as (
    select t.rows from targets as t
    where t.entity = 'bookings'
),

counted as (
    select
        'D-01' as gate_id,
        (
            select count(*) from collisions as l
            where l.position > 1
        ) as numerator,
        s.identities as denominator,
        jsonb_build_object(
            'source_bookings', s.source_bookings, 'identities', s.identities, 'bridge_rows', b.rows
        ) as detail
    from sums as s
    cross join bookings as b

    union all

    select
        g.gate_id,
        (
            select count(*) from faults as f
            where f.gate_id = g.gate_id
        ) as numerator,
        b.rows as denominator,
        null as detail
    from (values ('D-02'), ('D-04')) as g (gate_id)
    cross join bookings as b

    union all

    select
        'D-03' as gate_id,
        (
            select count(*) from findings as f
            where f.query = 'recon_head_counts'
        ) as numerator,
        b.rows as denominator,
        null as detail
    from bookings as b

    union all

    select
        'D-05' as gate_id,
        s.unbridged as numerator,
        s.source_bookings as denominator,
        null as detail
    from sums as s

    union all

    select
        'D-06' as gate_id,
        (
            select count(*) from unsourced as u
            where not u.is_reviewed
        ) as numerator,
        b.rows as denominator,
        null as detail
    from bookings as b
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
        f.gate_id,
        f.entity,
        f.key::text as key,
        f.status,
        true as is_counted,
        f.detail
    from faults as f
    where f.gate_id in ('D-02', 'D-04')

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
    from strayed as s
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
