-- Shadow reads compare one booking by the same rules that the full parity compares all of them by.
select {{ read_differences('l', 'n', "'{}' = any(a.rules)") }}
from
    jsonb_to_record(legacy) as l (
        id text, finance_items bigint, unpaid_items bigint
        {%- for field, type, _ in read_fields() %}, {{ field }} {{ type }}{% endfor %}
    ),
    jsonb_to_record(canonical) as n (
        has_several boolean, has_twins boolean, is_reviewed boolean, told jsonb, is_ingested boolean
        {%- for field, type, _ in read_fields() %}, {{ field }} {{ type }}{% endfor %}
    ),
    (select array({{ read_approved(ref('approved_differences').include(database=false)) }}) as rules) as a
