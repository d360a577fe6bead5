select
    finance_item_id,
    booking_finance_id,
    amount,
    paid
from {{ source('bstadmin', 'booking_finance_items') }}
