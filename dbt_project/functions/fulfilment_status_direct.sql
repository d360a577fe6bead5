select
    case
        when cancelled then 'CANCELLED'
        when tour_date < as_of and is_paid then 'COMPLETED'
        when tour_date < as_of then 'CANCELLED'
        when tour_date = as_of then 'ATTENTION'
        else 'NEW'
    end
