-- What the evidence alone says about each bstadmin package (mapping 3.2); people's decisions come after.
with packages as (

    select
        package_id,
        (package_name is not null or slug is not null) as is_valid
    from {{ ref('stg_bstadmin__tour_packages') }}

),

candidates as (

    select * from {{ ref('int_catalog_package_candidates') }}

),

first_levels as (

    select
        package_id,
        min(match_level) as match_level
    from candidates
    group by package_id

),

by_package as (

    select
        candidates.package_id,
        first_levels.match_level,
        array_agg(distinct candidates.product_key) filter (
            where candidates.match_level = first_levels.match_level
        ) as at_first_level,
        array_agg(distinct candidates.product_key) filter (where candidates.match_level > 1) as by_slug_or_name,
        jsonb_agg(
            jsonb_build_object('level', candidates.match_level, 'product_key', candidates.product_key)
            order by candidates.match_level, candidates.product_key
        ) as candidates
    from candidates
    inner join first_levels on candidates.package_id = first_levels.package_id
    group by candidates.package_id, first_levels.match_level

),

judged as (

    select
        *,
        cardinality(at_first_level) > 1 as has_several,
        -- the two databases count their ids apart: an id that slug and name contradict is not believed
        (
            match_level = 1
            and by_slug_or_name is not null
            and not by_slug_or_name && at_first_level
        ) as is_contradicted
    from by_package

),

final as (

    select
        packages.package_id,
        case
            when not packages.is_valid then 'INVALID_SOURCE'
            when judged.package_id is null then 'NO_MATCH'
            when judged.has_several or judged.is_contradicted then 'MULTI_MATCH'
            else 'MAPPED'
        end as match_status,
        judged.match_level,
        case
            when not judged.has_several and not judged.is_contradicted then judged.at_first_level[1]
        end as product_key,
        coalesce(judged.candidates, '[]'::jsonb) as candidates
    from packages
    left join judged on packages.package_id = judged.package_id

)

select * from final
