select
    {{ rulebook('named_key') }}(
        lower(entity_type collate "C"), entity_type || ':' || channel_code || ':' || kind || ':' || external_ref
    )
