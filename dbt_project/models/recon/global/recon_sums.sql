-- The landed rows of bookings by where they went (and where their money went): sums over all rows, kept, and brought up
-- to date by what was taken away and what was added (bridge/measure.py). A faulty row, one that is nowhere or whose
-- money is another, is a group of its own. `batch` is the batch from whose end on the entity has to be accounted for.
{{ config(twin='sums') }}

{%- set entities = {
    'bookings': 'D', 'items': 'D', 'travellers': 'D', 'payments': 'E', 'finances': 'E', 'finance_items': 'E'
} %}
{%- for entity, batch in entities.items() %}
    {{ recon_groups_of(entity, batch) }}
    {%- if not loop.last %}

        union all

    {% endif %}
{%- endfor %}
