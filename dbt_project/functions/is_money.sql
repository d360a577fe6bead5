-- NaN and Infinity sort above every number, so the comparison refuses them too.
select coalesce(round(value, 2) between -9999999999.99 and 9999999999.99, true)
