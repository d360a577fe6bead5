-- Joiners go before the composition, and composition comes once more after the upper case (a dotless i with an acute
-- becomes a plain I with one), so that a ref that has been normalised stays as it is.
select
    normalize(
        upper(
            {{ rulebook('norm_text') }}(
                normalize(regexp_replace(value collate "C", E'[{{ invisible() }}{{ joiners() }}]+', '', 'g'), nfc)
            ) collate {{ unicode_collation() }}
        ),
        nfc
    )
