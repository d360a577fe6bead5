-- sqlfluff:exclude_rules:ST05,ST06,RF04,AL03,AL05,AL08,AM04,AM06,AM09,RF02,RF03,ST04,ST07,LT05
-- Scenarios: small changes after the fill, each of which breaks one gate from the sources.
-- `-- @scenario name | gate | title` opens one, `-- @balisnap` and `-- @bstadmin` say where its statements run.
-- They may use pg_temp.plan, pg_temp.tour and sample.params.

-- @scenario broken-page | A-03 | A hurried release renamed a column that the back office's audit page still reads.
-- @bstadmin
alter table public.audit_logs rename column entity to subject;

-- @scenario orphan-products | C-01 | Someone created tours in the shop and never gave them a variant to sell.
-- @balisnap
insert into public."TourProduct" (product_id, product_name, slug, category, is_active, created_at, updated_at)
select
    2000 + g,
    'Coming soon no. ' || g,
    'coming-soon-' || g,
    'Culture',
    true,
    p.as_of::timestamp - interval '20 days',
    p.as_of::timestamp - interval '10 days'
from sample.params as p
-- just over half a per cent
cross join
    (select (select count(*) from public."TourProduct") + (select count(*) from public."TourVariant") as n) as catalogue
cross join lateral generate_series(1, (catalogue.n + 10) / 200 + 1) as g;

-- @scenario unmatched-packages | C-02 | The back office added seasonal packages that nobody linked to the shop's catalogue.
-- @bstadmin
insert into public.tour_packages (
    package_id, package_name, slug, price_per_person, base_currency, created_at, updated_at
)
select
    2000 + g,
    'Seasonal special ' || g,
    'seasonal-special-' || g,
    45,
    'USD',
    p.as_of::timestamp - interval '20 days',
    p.as_of::timestamp - interval '10 days'
from sample.params as p
cross join lateral generate_series(1, p.products / 2 + 5) as g;

-- @scenario rateless-variants | C-03 | A tour that only the web sells lost the prices of one variant, and no old package has one.
-- @balisnap
delete from public."VariantRatePlan" r
using sample.params p
where r.variant_id = p.products * 10 + 3;
update public."TourPackage" k set price_per_person = 0, price_per_child = null
from sample.params as p
where k.package_id = 1000 + p.products;

-- @scenario duplicate-pax | D-03 | A checkout release counted the lead traveller twice in every eighth booking.
-- @balisnap
update public."Booking" b set number_of_adult = b.number_of_adult + 1
from pg_temp.plan as q
where b.booking_id = q.bal_id and q.kind = 'B' and q.has_item and q.quirk is null and q.bal_id % 8 = 0;

-- @scenario conflicting-dates | G-02 | Operations moved most of the direct bookings by a day, and the shop never heard of it.
-- @bstadmin
update public.bookings b set tour_date = b.tour_date - interval '1 day'
from pg_temp.plan as q
where b.booking_id = q.ops_id and q.kind = 'X' and q.quirk is null and q.ops_id % 5 <> 0;

-- @scenario unreadable-currency | G-02 | A plug-in wrote the web prices as "Rp", so that nobody can say what was agreed.
-- @balisnap
update public."Booking" b set currency_code = 'Rp'
from pg_temp.plan as q
where b.booking_id = q.bal_id and q.kind = 'B' and q.quirk is null and q.bal_id % 8 = 0;

-- @scenario cancelled-on-the-web | G-02 | Customers cancelled on the web, but operations still plans their drivers.
-- @balisnap
update public."Booking" b set status = 'cancelled', status_v2 = 'CANCELLED'
from pg_temp.plan as q
where b.booking_id = q.bal_id and q.kind = 'X' and q.quirk is null and q.fate = 'paid' and q.bal_id % 5 <> 0;

-- @scenario done-unpaid | E-02 | Operations settled tours whose customers never paid.
-- @bstadmin
update public.bookings b set is_paid = false, paid_at = null
from pg_temp.fact as f
where b.booking_id = f.ops_id and f.kind = 'O' and f.money = 'paid' and f.n % 20 = 7;

-- @scenario audit-mismatch | E-03 | Three captures at PayPal hold another amount than the shop's books.
-- @balisnap
update public."Payment" y set
    raw_payload
    = jsonb_set(
        y.raw_payload, '{purchase_units,0,payments,captures,0,amount,value}', to_jsonb(round(y.amount + 5, 2)::text)
    )
from (
    select c.payment_id
    from public."Payment" as c
    inner join pg_temp.plan as q on c.booking_id = q.bal_id
    where q.quirk is null and c.raw_payload #> '{purchase_units,0,payments,captures}' is not null
    order by c.payment_id
    limit 3
) as chosen
where y.payment_id = chosen.payment_id;

-- @scenario swapped-captures | E-03 | Two payments hold each other's amounts: the sum is right, and both are wrong.
-- @balisnap
with
chosen as (
    select distinct on (c.amount)
        c.payment_id,
        c.amount
    from public."Payment" as c
    inner join pg_temp.plan as q on c.booking_id = q.bal_id
    where
        q.quirk is null and c.currency_code = 'USD'
        and c.raw_payload #> '{purchase_units,0,payments,captures}' is not null
    order by c.amount, c.payment_id
),

pair as (
    select
        p.payment_id,
        p.amount
    from chosen as p
    order by p.amount
    limit 2
)

update public."Payment" y set amount = o.amount
from pair as p
inner join pair as o on p.payment_id <> o.payment_id
where y.payment_id = p.payment_id;
