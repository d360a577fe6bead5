select coalesce({{ rulebook('norm_code') }}(value) collate "C" ~ '^[A-Z]{3}$', false)
