select
    case {{ rulebook('norm_code') }}(source)
        when 'DIRECT' then 'DIRECT'
        when 'GYG' then 'GYG'
        when 'VIATOR' then 'VIATOR'
        when 'BOKUN' then 'BOKUN'
        when 'TRIPDOTCOM' then 'TRIPDOTCOM'
        else 'MANUAL'
    end
