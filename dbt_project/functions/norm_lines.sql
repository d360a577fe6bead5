-- From the inside out: line ends become \n; each line gets the text rule (invisible characters, runs of white space,
-- its two ends); runs of empty lines become one; none stays at either end.
select
    nullif(
        btrim(
            regexp_replace(
                regexp_replace(
                    regexp_replace(
                        regexp_replace(
                            regexp_replace(value collate "C", E'\r\n?', E'\n', 'g'),
                            E'[{{ invisible() }}]+', '', 'g'
                        ),
                        E'[{{ white_space_in_line() }}]+', ' ', 'g'
                    ),
                    E' ?\n ?', E'\n', 'g'
                ),
                E'\n{3,}', E'\n\n', 'g'
            ),
            E' \n'
        ),
        ''
    )
