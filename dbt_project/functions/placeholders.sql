select coalesce(array_agg(listed.value::text order by listed.value collate "C"), '{}')
from {{ ref('placeholder_contacts').include(database=false) }} as listed
where listed.kind = placeholders.kind
