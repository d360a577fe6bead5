-- Brought to the one spelling that the last pattern checks, hours and all, and that the cast then reads: a final a.m.
-- becomes ` am`, dots become colons, a bare hour before it gets its minutes. The cast does not depend on a setting but
-- Postgres marks it stable, so the function is stable: an immutable one would not be inlined.
select
    substring(
        regexp_replace(
            translate(
                regexp_replace(
                    lower({{ rulebook('norm_text') }}(value) collate "C"), ' ?([ap])[.]?m[.]?$', E' \\1m'
                ),
                '.', ':'
            ),
            '^([0-9]{1,2}) ', E'\\1:00 '
        )
        from '^(?:(?:[01]?[0-9]|2[0-3])(?::[0-5][0-9]){1,2}|(?:0?[0-9]|1[0-2])(?::[0-5][0-9]){1,2} [ap]m)$'
    )::time
