select coalesce({{ rulebook('listed_payment_status') }}(status_v2, status), 'PENDING_PAYMENT')
