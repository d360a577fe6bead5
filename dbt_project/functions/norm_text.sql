select
    nullif(
        btrim(
            regexp_replace(
                regexp_replace(value collate "C", E'[{{ invisible() }}]+', '', 'g'),
                E'[{{ white_space() }}]+', ' ', 'g'
            )
        ),
        ''
    )
