select case when finance_items > 0 and unpaid_items = 0 then 'SETTLED' else 'PENDING' end
