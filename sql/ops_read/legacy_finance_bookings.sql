-- Behind a finance summary: each booking with a digest of what it brings to the sums, from bstadmin.
select
    jsonb_build_object(
        'id', b.booking_id::text,
        'digest', md5(
            concat_ws(
                '|', upper(btrim(b.currency)), b.number_of_adult + coalesce(b.number_of_child, 0),
                b.total_price::numeric(12, 2), b.is_paid, f.booking_finance_id is not null,
                f.validated_at is not null, f.is_locked,
                case when f.booking_finance_id is not null then i.items > 0 and i.unpaid = 0 end
            )
        )
    ) as page_row
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
