select
    case
        when stored in ('CANCELLED', 'NO_SHOW') then stored
        when {{ rulebook('settlement_status') }}(finance_items, unpaid_items) = 'SETTLED' then 'DONE'
        when validated_at is not null then 'COMPLETED'
        when tour_date <= as_of then 'ATTENTION'
        when stored = 'UPDATED' then 'UPDATED'
        when driver_id is not null and pattern_id is not null then 'READY'
        else 'NEW'
    end
