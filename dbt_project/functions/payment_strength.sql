select
    case
        when paid and has_capture then 5
        when paid and has_ref then 4
        when paid then 3
        when ops_paid and ops_paid_at is not null then 2
        when ops_paid or looks_paid then 1
        else 0
    end
