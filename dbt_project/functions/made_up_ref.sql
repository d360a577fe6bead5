select case source_system when 'balisnap' then 'BS-' when 'bstadmin' then 'OPS-' end || booking_id::text
