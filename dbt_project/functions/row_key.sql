select
    {{ rulebook('named_key') }}(
        case entity when 'rate' then 'variant' when 'finance' then 'payment' else entity end,
        source_system || ':' || source_table || ':' || source_pk
    )
