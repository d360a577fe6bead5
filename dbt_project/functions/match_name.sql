-- Combining marks are no letters, so the one class removes them too.
select
    nullif(
        regexp_replace(
            lower(normalize(value, nfkd) collate {{ unicode_collation() }}) collate "C",
            E'[^{{ letters_and_digits() }}]+', '', 'g'
        ),
        ''
    )
