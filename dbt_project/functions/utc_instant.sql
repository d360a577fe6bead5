select case when isfinite(value) then value at time zone 'UTC' end
