-- Grain: one code that a dictionary must hold, or holds besides (listed, not counted).
select
    coalesce(wanted.dictionary, found.dictionary) as dictionary,
    coalesce(wanted.code, found.code) as code,
    wanted.code is not null as is_wanted,
    found.code is not null as is_found
from {{ ref('dictionary_contract') }} as wanted
full join (select d.dictionary, d.code from phase2.dictionary_codes() as d) as found
    on wanted.dictionary = found.dictionary and wanted.code = found.code
where
    wanted.code is not null
    or found.dictionary in (select c.dictionary from {{ ref('dictionary_contract') }} as c)
