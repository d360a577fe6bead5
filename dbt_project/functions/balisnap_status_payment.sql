select
    case {{ rulebook('status_word') }}(status_v2, status)
        when 'paid' then 'PAID'
        when 'confirmed' then 'PAID'
        when 'completed' then 'PAID'
        when 'draft' then 'DRAFT'
        when 'refunded' then 'REFUNDED'
        when 'failed' then 'FAILED'
        when 'cancelled' then 'FAILED'
        when 'expired' then 'FAILED'
        else 'PENDING_PAYMENT'
    end
