select coalesce(lower({{ rulebook('norm_text') }}(value) collate {{ unicode_collation() }}) = any(list), true)
