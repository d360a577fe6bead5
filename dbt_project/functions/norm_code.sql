select upper({{ rulebook('norm_text') }}(value) collate {{ unicode_collation() }})
