select case when abs(round(value, 2)) <= 9999999999.99 then round(value, 2) else 0.00 end
