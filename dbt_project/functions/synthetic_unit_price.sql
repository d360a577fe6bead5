select {{ rulebook('norm_money') }}(total_price / nullif(adults::bigint + children, 0))
