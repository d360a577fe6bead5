-- Only ASCII letters survive, and after NFKD only ASCII letters become ASCII letters: the C collation suffices.
select
    nullif(
        btrim(
            regexp_replace(
                lower(regexp_replace(normalize(value, nfkd) collate "C", E'[{{ combining_marks() }}]+', '', 'g')),
                '[^a-z0-9]+', '-', 'g'
            ),
            '-'
        ),
        ''
    )
