-- The steps of the rule from the inside out; each step that fits puts a + in front, which is why the later ones are
-- its `else`. A number that starts with 00 or 62 gets its + first, so +620 and a leading 0 can share the last step.
select
    coalesce(
        substring(
            regexp_replace(
                regexp_replace(
                    regexp_replace(
                        regexp_replace(value collate "C", '[^0-9+]+', '', 'g'),
                        '(.)[+]+', E'\\1', 'g'
                    ),
                    '^(?:00|(?=62[0-9]{8}))', '+'
                ),
                '^(?:0|[+]620)', '+62'
            )
            from '^[+]?[0-9]{8,15}$'
        ),
        {{ rulebook('norm_place') }}(value)
    )
