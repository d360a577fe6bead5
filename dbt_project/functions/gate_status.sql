select
    case
        when denominator = 0 then case when na_when_empty then 'N/A' else 'FAIL' end
        when value = 'NaN' then 'FAIL'
        when comparator = '=' and value = threshold then 'PASS'
        when comparator = '<=' and value <= threshold then 'PASS'
        when comparator = '>=' and value >= threshold then 'PASS'
        else 'FAIL'
    end
