select {{ rulebook('listed_payment_status') }}(status_v2, status) is not null
