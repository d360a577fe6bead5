select coalesce({{ rulebook('status_word') }}(status_v2, status) = 'expired', false)
