-- The causes as rows of unmapped_queue, several causes of one row and reason merged.
with causes as (

    select * from {{ ref('int_catalog_causes') }}

),

final as (

    select
        {{ function('queue_key') }}(queue_type, source_system, source_table, source_pk, reason_code) as queue_key,
        queue_type,
        case source_system when 'balisnap' then 'DIRECT' else 'MANUAL' end as channel_code,
        source_system,
        source_table,
        source_pk,
        reason_code,
        string_agg(distinct cause collate "C", '; ' order by cause collate "C") as reason_detail,
        jsonb_build_object(
            'causes',
            jsonb_agg(
                jsonb_build_object('cause', cause) || detail
                order by cause collate "C", detail::text collate "C"
            )
        ) as payload
    from causes
    group by queue_type, source_system, source_table, source_pk, reason_code

)

select * from final
