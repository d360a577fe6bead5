{#
  The rows of unmapped_queue that a run has to write (mapping 3.9), for one or more queue types.

  `wanted` is a relation or CTE with the causes found by this run, one row per key:
    queue_key, queue_type, channel_code, source_system, source_table, source_pk, reason_code, reason_detail, payload
  A cause without a row is opened; an OPEN row is brought up to date; a row that a run closed is opened again when
  its cause is back; an OPEN row whose cause is gone is closed, and says that a run did it. A row that a person
  moved (IN_REVIEW, RESOLVED, or CLOSED by a name) is not returned at all, so it is never written.
  A payload's `resolution` is a person's word: it is kept when the row is brought up to date.
#}
{% macro queue_lifecycle(wanted, existing) %}
    select
        w.queue_key, w.queue_type, w.channel_code, w.source_system, w.source_table, w.source_pk, w.reason_code,
        w.reason_detail,
        'OPEN' as status,
        case
            when q.payload ? 'resolution'
                then w.payload || jsonb_build_object('resolution', q.payload -> 'resolution')
            else w.payload
        end as payload,
        null::varchar as resolved_by,
        null::timestamptz as resolved_at
    from {{ wanted }} as w
    left join {{ existing }} as q on w.queue_key = q.queue_key
    where
        q.queue_key is null
        or q.status = 'OPEN'
        or (q.status = 'CLOSED' and q.resolved_by = '{{ queue_closed_by_run() }}')

    union all

    select
        q.queue_key, q.queue_type, q.channel_code, q.source_system, q.source_table, q.source_pk, q.reason_code,
        q.reason_detail,
        'CLOSED' as status,
        q.payload,
        '{{ queue_closed_by_run() }}' as resolved_by,
        now() as resolved_at
    from {{ existing }} as q
    where
        q.status = 'OPEN'
        and not exists (select 1 from {{ wanted }} as w where w.queue_key = q.queue_key)
{% endmacro %}

{# What `resolved_by` says on a row that a run closed because its cause was gone. #}
{% macro queue_closed_by_run() %}phase2 run: cause gone{% endmacro %}
