-- What a person decided about a payment or a finance that belonged to nothing, or to too much: "it is this booking's".
with queue as (
    select * from {{ source('bridge', 'unmapped_queue') }}
    where
        queue_type = 'PAYMENT_LINK'
        and status in ('RESOLVED', 'CLOSED')
        and resolved_by is distinct from '{{ queue_closed_by_run() }}'
        and payload #>> '{resolution,entity_type}' = 'BOOKING'
),

resolved as (
    select
        source_system,
        source_table,
        source_pk,
        resolved_at,
        queue_key,
        -- A key that is no uuid names no booking; casting it would stop the run.
        case
            when
                payload #>> '{resolution,entity_key}'
                ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                then (payload #>> '{resolution,entity_key}')::uuid
        end as booking_key
    from queue
),

known as (
    select booking_key from {{ source('bridge', 'booking_core') }}
    union all
    select booking_key from {{ ref('int_booking_identities') }}
)

select distinct on (source_system, source_table, source_pk)
    source_system,
    source_table,
    source_pk,
    booking_key
from resolved
where booking_key in (select known.booking_key from known)
order by source_system asc, source_table asc, source_pk asc, resolved_at desc nulls last, queue_key asc
