select
    coalesce(
        {{ rulebook('status_word') }}(status_v2, status) = any(array['paid', 'confirmed', 'completed']), false
    )
