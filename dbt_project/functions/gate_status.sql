select
    case
        when denominator = 0 and na_when_empty and coalesce(numerator, 0) = 0 and coalesce(value, 0) = 0 then 'N/A'
        when denominator = 0 or value = 'NaN' then 'FAIL'
        when comparator = '=' and value = threshold then 'PASS'
        when comparator = '<=' and value <= threshold then 'PASS'
        when comparator = '>=' and value >= threshold then 'PASS'
        else 'FAIL'
    end
