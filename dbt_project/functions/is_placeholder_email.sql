-- An entry of the list that starts with @ stands for every address of that domain, so what is looked up is the whole
-- address and, where there is one, the part from its last @.
select
    coalesce(
        regexp_match(
            lower({{ rulebook('norm_text') }}(value) collate {{ unicode_collation() }}) collate "C",
            '^(.*(@[^@]*)|[^@]*)$'
        ) && list,
        true
    )
