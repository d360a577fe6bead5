select nullif(regexp_replace({{ rulebook('norm_text') }}(value) collate "C", '^(-|n/a|na|unknown)$', '', 'i'), '')
