select
    case entity
        when 'booking' then uuid '1396788e-dfe4-558e-977f-cbac85111c4c'
        when 'product' then uuid '1b2c8dda-1d99-57f5-bdc1-b9fb772d8186'
        when 'variant' then uuid '6b647a19-b987-5dd4-8c1e-94bceb859370'
        when 'payment' then uuid '2dfcb1f0-47c5-5823-9bc3-c281e0fd702f'
    end
