-- What the tours of some days bring and how far they are settled, currency by currency, from the read model.
select to_jsonb(p) as page_row
from (
    select
        b.currency,
        count(*) as bookings,
        sum(b.heads) as heads,
        sum(b.total_price)::text as total_price,
        count(*) filter (where b.is_paid) as paid_bookings,
        coalesce(sum(b.total_price) filter (where b.is_paid), 0)::numeric(14, 2)::text as paid_price,
        count(b.finance_id) as finances,
        count(b.validated_at) as validated,
        count(*) filter (where b.is_locked) as locked,
        count(*) filter (where b.settlement = 'SETTLED') as settled
    from ops_read.ops_finances as b
    where b.tour_date between %(date_from)s and %(date_to)s and b.status not in ('CANCELLED', 'NO_SHOW')
    group by b.currency
    order by b.currency
) as p
