select
    case
        when isfinite(value) then (least(value, timestamp '294276-12-30 00:00:00') + interval '12 hours')::date
    end
