-- Gate G-01: bridge rows that are the same booking, by the normal form of their identity or by a source booking that
-- two of them came from. The first of a group (lowest key) is not listed: it is the one that may stay.
{{ config(twin='together') }}

{%- set by_identity -%}
    hash_record_extended(row(channel_code, {{ recon_norm_ref('external_booking_ref') }}), 0)
{%- endset %}
-- a number for each instead of its texts: what stands once is most of them, and left behind here
with suspects as materialized (
    select {{ by_identity }} as suspect
    from {{ source('bridge', 'booking_core') }}
    group by suspect
    having count(*) > 1
),

identities as materialized (
    select
        booking_key,
        channel_code,
        {{ recon_norm_ref('external_booking_ref') }} as ref
    from {{ source('bridge', 'booking_core') }}
    where exists (select 1 from suspects) and {{ by_identity }} in (select s.suspect from suspects as s)
),

same_identity as (
    select
        channel_code,
        ref
    from identities
    group by channel_code, ref
    having count(*) > 1
),

suspect_sources as materialized (
    select hash_record_extended(row(external_ref_kind, source_pk), 0) as suspect
    from {{ source('bridge', 'channel_external_refs') }}
    where entity_type = 'BOOKING' and external_ref_kind in ('BALISNAP_BOOKING_ID', 'BSTADMIN_BOOKING_ID')
    group by suspect
    having count(*) > 1
),

refs as materialized (
    select
        external_ref_kind,
        source_pk,
        entity_key
    from {{ source('bridge', 'channel_external_refs') }}
    where
        exists (select 1 from suspect_sources)
        and entity_type = 'BOOKING'
        and hash_record_extended(row(external_ref_kind, source_pk), 0) in (select s.suspect from suspect_sources as s)
),

same_source as (
    select
        external_ref_kind,
        source_pk
    from refs
    where external_ref_kind in ('BALISNAP_BOOKING_ID', 'BSTADMIN_BOOKING_ID')
    group by external_ref_kind, source_pk
    having count(*) > 1
),

groups as (
    select
        'identity' as by,
        identities.channel_code || ':' || coalesce(identities.ref, '') as what,
        identities.booking_key
    from identities
    inner join same_identity
        on
            identities.channel_code = same_identity.channel_code
            and identities.ref is not distinct from same_identity.ref

    union all

    select distinct
        'source booking' as by,
        refs.external_ref_kind || ':' || refs.source_pk as what,
        refs.entity_key as booking_key
    from refs
    inner join same_source
        on refs.external_ref_kind = same_source.external_ref_kind and refs.source_pk = same_source.source_pk
),

numbered as (
    select
        *,
        row_number() over (partition by by, what order by booking_key) as position
    from groups
)

select
    'booking' as entity,
    booking_key as key,
    'DUPLICATE' as status,
    jsonb_object_agg(by, what) as detail
from numbered
where position > 1
group by booking_key
