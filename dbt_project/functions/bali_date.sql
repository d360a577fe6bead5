-- The last instants of the type have no later local time; a day earlier is as far from any booking.
select
    case
        when isfinite(value)
            then (least(value, timestamptz '294276-12-30 00:00:00+00') at time zone 'Asia/Makassar')::date
    end
