-- What the sources say of each booking that has several candidates: a full comparison asks for all of them at once.
with refs as materialized (
    {{ read_numbers() }}
),

several as (
    select booking_key
    from refs
    group by booking_key
    having count(*) > 1
),

numbers as (
    select refs.*
    from refs
    inner join several on refs.booking_key = several.booking_key
)

{{ read_told('numbers') }}
