select
    translate(
        lower(coalesce({{ rulebook('norm_text') }}(status_v2), {{ rulebook('norm_text') }}(status)) collate "C"),
        '- ', '__'
    )
