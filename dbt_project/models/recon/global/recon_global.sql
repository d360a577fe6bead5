-- What the verdicts of A and B read of the global gates and the required queries: they bring no rows themselves, so the
-- state is asked as it is. Rows are asked for of the batches that have passed on the landing that is there, and of the
-- ones before these: what landed since, or was lost with an unlogged table, is the next batch's to bridge and no fault
-- of the bridge. On a first run that is nothing (N/A). Duplicate bookings need no landing and are always asked for.
{{ config(twin='composite') }}

with landing as (
    select max(runs.landed_at) as landed_at
    from {{ source('phase2', 'landing_runs') }} as runs
    where
        not exists (
            select 1 from {{ ref('recon_landing') }} as l
            where l.landed_rows is distinct from l.present_rows
        )
),

passed as (
    select states.batch
    from {{ source('phase2', 'batch_state') }} as states
    cross join landing
    where
        states.status = 'PASS'
        and exists (
            select 1 from {{ source('phase2', 'gate_results') }} as results
            where results.batch = states.batch and results.evaluated_at > landing.landed_at
        )
),

asked as materialized (
    select batches.batch
    from (
        values ('C', array['C', 'D', 'E']), ('D', array['D', 'E']), ('E', array['E'])
    ) as batches (batch, asked_by)
    where
        exists (
            select 1 from passed
            where passed.batch = any(batches.asked_by)
        )
),

{{ recon_global_ctes() }}

{{ recon_global_rows() }}
