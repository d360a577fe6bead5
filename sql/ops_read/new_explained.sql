-- Pairs of one booking from both sides, each with what differs and the approved rule that explains it (or null).
with approved as materialized (
    select coalesce(array_agg(s.field || ':' || s.rule), '{}') as rules
    from dbt_seeds.approved_differences as s
    where s.expires_on is null or s.expires_on >= (now() at time zone 'Asia/Makassar')::date
)

select
    jsonb_build_object(
        'id', e.id,
        'differences',
        case
            when e.canonical is null
                then jsonb_build_object(
                    'booking', jsonb_build_array(
                        'there', null,
                        case
                            when
                                'booking:QUEUED' = any(a.rules)
                                and exists (
                                    select 1 from public.unmapped_queue as q
                                    where
                                        q.reason_code = 'INVALID_SOURCE'
                                        and q.source_system = 'bstadmin'
                                        and q.source_table = 'bookings'
                                        and q.source_pk = e.id
                                )
                                then 'QUEUED'
                        end
                    )
                )
            when e.legacy is null
                then jsonb_build_object(
                    'booking', jsonb_build_array(
                        null, 'there',
                        case
                            when
                                'booking:GONE' = any(a.rules)
                                and exists (
                                    select 1 from public.unmapped_queue as q
                                    where
                                        q.reason_code = 'NO_MATCH'
                                        and q.source_table = 'booking_identity'
                                        and q.source_pk
                                        = concat_ws(':', e.canonical ->> 'channel', e.canonical ->> 'reference')
                                )
                                then 'GONE'
                            when
                                'booking:INGESTED' = any(a.rules)
                                and phase2.is_only_ingested((e.canonical ->> 'key')::uuid)
                                then 'INGESTED'
                        end
                    )
                )
            else
                coalesce(rulebook.read_differences(e.legacy, e.canonical), '{}')
                -- bookings that were merged stand on the read model's pages once, under the lowest number
                || case
                    when e.canonical ->> 'id' ~ '^[0-9]+$' and e.canonical ->> 'id' <> e.id
                        then jsonb_build_object(
                            'row', jsonb_build_array(
                                'there', null, case when 'row:OTHER_BOOKING' = any(a.rules) then 'OTHER_BOOKING' end
                            )
                        )
                    else '{}'
                end
        end
    ) as page_row
from jsonb_to_recordset(%(pairs)s::jsonb) as e (id text, legacy jsonb, canonical jsonb)
cross join approved as a
