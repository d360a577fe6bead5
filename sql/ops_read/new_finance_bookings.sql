-- Behind a finance summary: each booking with a digest of what it brings to the sums, from the read model.
select
    jsonb_build_object(
        'id', b.id,
        'digest', md5(
            concat_ws(
                '|', b.currency, b.adults + b.children, b.total_price, b.is_paid, b.finance_id is not null,
                b.validated_at is not null, b.is_locked, b.settlement = 'SETTLED'
            )
        )
    ) as page_row
from ops_read.ops_bookings as b
where b.tour_date between %(date_from)s and %(date_to)s and b.status not in ('CANCELLED', 'NO_SHOW')
