select coalesce(substring({{ rulebook('norm_code') }}(value) collate "C" from '^[A-Z]{3}$'), 'USD')
