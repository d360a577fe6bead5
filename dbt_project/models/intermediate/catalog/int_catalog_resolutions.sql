-- What people decided on queue rows about the mapping of products, variants and packages (mapping 3.9).
-- A row that a run closed carries no decision; of several decisions about one source row the latest counts.
with queue as (

    select * from {{ source('bridge', 'unmapped_queue') }}

),

decided as (

    select
        source_system,
        source_table,
        source_pk,
        upper((payload -> 'resolution' ->> 'entity_type') collate "C") as entity_type,
        lower((payload -> 'resolution' ->> 'entity_key') collate "C") as entity_key,
        resolved_at,
        reason_code
    from queue
    where
        queue_type in ('PRODUCT_MAPPING', 'VARIANT_MAPPING')
        and (
            status = 'RESOLVED'
            or (status = 'CLOSED' and resolved_by is distinct from '{{ queue_closed_by_run() }}')
        )

),

final as (

    select distinct on (source_system, source_table, source_pk)
        source_system,
        source_table,
        source_pk,
        entity_type,
        entity_key::uuid as entity_key
    from decided
    where
        entity_type in ('PRODUCT', 'VARIANT')
        and entity_key ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    order by
        source_system asc,
        source_table asc,
        source_pk asc,
        resolved_at desc nulls last,
        reason_code collate "C" desc

)

select * from final
