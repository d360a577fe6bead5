select
    coalesce(
        (select run.as_of from {{ source('phase2', 'run_context').include(database=false) }} as run),
        (now() at time zone 'Asia/Makassar')::date
    )
