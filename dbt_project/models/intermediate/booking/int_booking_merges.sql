with candidates as (
    select * from {{ ref('int_booking_candidates') }}
    where candidates > 1
),

winners as (
    select
        booking_key,
        tour_date
    from candidates
    where candidate_rank = 1
),

-- Equal notes count once, for the first in order: balisnap by rank, then bstadmin by rank (mapping 4.4).
notes as (
    select
        booking_key,
        note,
        min(array[case source_system when 'balisnap' then 1 else 2 end, source_rank]) as place
    from candidates
    where note is not null
    group by booking_key, note
),

joined_notes as (
    select
        booking_key,
        case
            when count(*) = 1 then min(note collate "C")
            else
                string_agg(
                    '[' || case place[1] when 1 then 'balisnap' else 'bstadmin' end || '] ' || note,
                    E'\n' order by place
                )
        end as note
    from notes
    group by booking_key
),

disputed_totals as (
    select distinct booking_key
    from (
        select booking_key
        from candidates
        group by booking_key, currency_code
        having max(total_price) - min(total_price) > 0.01
    ) as differing
),

merged as (
    select
        candidates.booking_key,
        min(candidates.created_at) as booking_created_at,
        min(candidates.received_on) as booking_date,
        min(candidates.tour_date) <> max(candidates.tour_date) as is_tour_date_disputed,
        -- a null of the winner is filled from the next candidate, the time only from one with the same date
        (
            array_agg(candidates.number_of_child order by candidates.candidate_rank)
            filter (where candidates.number_of_child is not null)
        )[1] as number_of_child,
        (
            array_agg(candidates.tour_time order by candidates.candidate_rank)
            filter (where candidates.tour_time is not null and candidates.tour_date = winners.tour_date)
        )[1] as tour_time,
        (min(array[
            candidates.candidate_rank,
            case candidates.source_system when 'balisnap' then 1 else 2 end,
            candidates.package_id
        ]) filter (where candidates.package_id is not null)) as package_place,
        max(candidates.booking_id) filter (where candidates.carries_items) as items_booking_id,
        -- of the best-ranked candidate of each source
        max(candidates.status) filter (where candidates.source_system = 'balisnap' and candidates.source_rank = 1)
            as balisnap_status,
        max(candidates.status_v2) filter (where candidates.source_system = 'balisnap' and candidates.source_rank = 1)
            as balisnap_status_v2,
        max(candidates.booking_id) filter (where candidates.source_system = 'balisnap' and candidates.source_rank = 1)
            as balisnap_booking_id,
        max(candidates.booking_id) filter (where candidates.source_system = 'bstadmin' and candidates.source_rank = 1)
            as bstadmin_booking_id,
        max(candidates.status) filter (where candidates.source_system = 'bstadmin' and candidates.source_rank = 1)
            as bstadmin_status,
        max(candidates.source_enum) filter (where candidates.source_system = 'bstadmin' and candidates.source_rank = 1)
            as bstadmin_source_enum,
        max(candidates.updated_at) filter (where candidates.source_system = 'bstadmin' and candidates.source_rank = 1)
            as bstadmin_updated_at,
        max(candidates.assigned_driver_id)
        filter (where candidates.source_system = 'bstadmin' and candidates.source_rank = 1) as assigned_driver_id,
        max(candidates.assigned_at) filter (where candidates.source_system = 'bstadmin' and candidates.source_rank = 1)
            as assigned_at
    from candidates
    inner join winners on candidates.booking_key = winners.booking_key
    group by candidates.booking_key
)

select
    merged.booking_key,
    merged.booking_created_at,
    merged.booking_date,
    merged.is_tour_date_disputed,
    merged.number_of_child,
    merged.tour_time,
    joined_notes.note,
    merged.items_booking_id,
    merged.balisnap_booking_id,
    merged.balisnap_status,
    merged.balisnap_status_v2,
    merged.bstadmin_booking_id,
    merged.bstadmin_status,
    merged.bstadmin_source_enum,
    merged.bstadmin_updated_at,
    merged.assigned_driver_id,
    merged.assigned_at,
    disputed_totals.booking_key is not null as is_total_disputed,
    case merged.package_place[2] when 1 then 'balisnap' when 2 then 'bstadmin' end as package_system,
    merged.package_place[3] as package_id
from merged
left join joined_notes on merged.booking_key = joined_notes.booking_key
left join disputed_totals on merged.booking_key = disputed_totals.booking_key
