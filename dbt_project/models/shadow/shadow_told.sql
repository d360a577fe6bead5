-- What the sources say of a booking, for who asks by its key: a shadow read.
with numbers as not materialized (
    {{ read_numbers() }}
)

{{ read_told('numbers') }}
