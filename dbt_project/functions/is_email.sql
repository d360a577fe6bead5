select
    coalesce(
        value collate "C" ~ E'^[^@{{ white_space() }}]+@[^@{{ white_space() }}]+[.][^@{{ white_space() }}]+$', false
    )
