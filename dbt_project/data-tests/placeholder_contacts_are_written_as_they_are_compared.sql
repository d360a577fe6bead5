-- The rulebook compares lower-case, normalised text with these values and takes a leading @ for "ends with".
with listed as (
    select
        kind,
        value,
        match,
        lower({{ function('norm_text') }}(value)) as compared,
        count(*) over (partition by kind, value) as copies
    from {{ ref('placeholder_contacts') }}
)

select
    kind,
    value,
    match
from listed
where
    value is distinct from compared
    or copies > 1
    or (match = 'suffix') <> (kind = 'email' and value like '@%.%')
