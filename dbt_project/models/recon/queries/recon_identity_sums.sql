-- How many landed bookings there are, how many of them the bridge lacks, and how many identities they are: sums that
-- are kept like recon_sums. Whoever shares an identity is measured together, so these can be added up, too.
-- Grain: all landed bookings.
{{ config(twin='sums') }}

select
    coalesce(sum(identities.bookings), 0) as source_bookings,
    coalesce(sum(identities.unbridged), 0) as unbridged,
    count(*)::numeric as identities
from (
    select
        count(*) as bookings,
        count(*) filter (where i.key_by_identity is null and not i.is_queued) as unbridged
    from {{ ref('recon_source_identities') }} as i
    group by i.channel_code, i.external_booking_ref
) as identities
