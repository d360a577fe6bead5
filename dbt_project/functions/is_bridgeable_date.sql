select coalesce(value between date '1900-01-01' and date '2199-12-31', false)
