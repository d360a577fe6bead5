-- Grain: one code that a dictionary must hold, or holds besides (listed, not counted).
with wanted as (
    select * from {{ ref('dictionary_contract') }}
),

found as (
    select
        d.dictionary,
        d.code
    from phase2.dictionary_codes() as d
    where d.dictionary in (select w.dictionary from wanted as w)
)

select
    coalesce(wanted.dictionary, found.dictionary) as dictionary,
    coalesce(wanted.code, found.code) as code,
    wanted.code is not null as is_wanted,
    found.code is not null as is_found
from wanted
full join found on wanted.dictionary = found.dictionary and wanted.code = found.code
