-- The same summary from bstadmin.
select to_jsonb(p) as page_row
from (
    select
        upper(btrim(b.currency)) as currency,
        count(*) as bookings,
        sum(b.number_of_adult + coalesce(b.number_of_child, 0)) as heads,
        sum(b.total_price)::text as total_price,
        count(*) filter (where b.is_paid) as paid_bookings,
        coalesce(sum(b.total_price) filter (where b.is_paid), 0)::numeric(14, 2)::text as paid_price,
        count(f.booking_finance_id) as finances,
        count(f.validated_at) as validated,
        count(*) filter (where f.is_locked) as locked,
        count(*) filter (where i.items > 0 and i.unpaid = 0) as settled
    from public.bookings as b
    left join public.booking_finances as f on b.booking_id = f.booking_id
    left join lateral (
        select
            count(*) as items,
            count(*) filter (where not n.paid) as unpaid
        from public.booking_finance_items as n
        where n.booking_finance_id = f.booking_finance_id
    ) as i on true
    where
        b.tour_date >= %(date_from)s::timestamp - interval '8 hours'
        and b.tour_date < %(date_to)s::timestamp + interval '16 hours'
        and b.status not in ('CANCELLED', 'NO_SHOW')
    group by upper(btrim(b.currency))
    order by upper(btrim(b.currency))
) as p
