select
    {{ rulebook('named_key') }}(
        'variant',
        'unmapped:' || queue_type || ':' || source_system || ':' || source_table || ':' || source_pk
        || ':' || reason_code
    )
