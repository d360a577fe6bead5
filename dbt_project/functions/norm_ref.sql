-- Joiners go before the composition, so that a ref that has been normalised stays as it is.
select
    upper(
        {{ rulebook('norm_text') }}(
            normalize(regexp_replace(value collate "C", E'[{{ invisible() }}{{ joiners() }}]+', '', 'g'), nfc)
        ) collate {{ unicode_collation() }}
    )
