select
    coalesce(
        {{ rulebook('status_word') }}(status_v2, status) = any(array['cancelled', 'refunded']), false
    )
