-- Parts: hour, separator and minutes, minutes, separator and seconds, seconds, a or p.
select
    make_time(
        case when part[6] is null then part[1]::integer else part[1]::integer % 12 end
        + case lower(part[6] collate "C") when 'p' then 12 else 0 end,
        coalesce(part[3]::integer, 0),
        coalesce(part[5]::integer, 0)
    )
from
    regexp_match(
        {{ rulebook('norm_text') }}(value) collate "C",
        '^([0-9]{1,2})([:.]([0-5][0-9])([:.]([0-5][0-9]))?)? ?(?:([ap])[.]?m[.]?)?$',
        'i'
    ) as found (part)
where
    case
        when part[6] is null then part[2] is not null and part[1]::integer <= 23
        else part[1]::integer between 1 and 12
    end
