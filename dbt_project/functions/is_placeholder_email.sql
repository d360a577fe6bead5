-- An entry of the list that starts with @ stands for every address of that domain. Null is null to the first test
-- only, which makes the whole null, and so true.
select
    coalesce(
        lower({{ rulebook('norm_text') }}(value) collate {{ unicode_collation() }}) = any(list)
        or coalesce(
            substring(
                lower({{ rulebook('norm_text') }}(value) collate {{ unicode_collation() }}) collate "C"
                from '@[^@]*$'
            ) = any(list),
            false
        ),
        true
    )
