-- Statements of the legacy applications' main pages, as their ORM sends them (gate A-03). They are run read-only on the
-- two source databases before batch A and again after it: none may fail. Each begins with its name; `-- @source` says
-- on which database the statements below it run. Literals stand where the pages have parameters.

-- @source balisnap

-- @name tour list: active products with their lowest adult price
select
    p.product_id, p.product_name, p.slug, p.short_description, p.thumbnail_url, p.is_featured, p.priority,
    min(r.price) as from_price
from public."TourProduct" as p
left join public."TourVariant" as v on v.product_id = p.product_id and v.is_active
left join public."VariantRatePlan" as r
    on r.variant_id = v.variant_id and r.is_active and r.traveler_type = 'ADULT'
where p.is_active
group by p.product_id
order by p.is_featured desc, p.priority nulls last, p.product_id
limit 24;

-- @name tour page: product by slug with variants and rates
select
    p.product_id, p.product_name, p.description, p.category, p.region, p.base_meeting_point,
    v.variant_id, v.variant_code, v.variant_name, v.service_type, v.duration_days, v.duration_nights, v.min_pax,
    v.max_pax, v.booking_cutoff_hours, v.cancellation_policy,
    r.traveler_type, r.price, r.currency_code, r.valid_from, r.valid_to, r.season_start, r.season_end
from public."TourProduct" as p
join public."TourVariant" as v on v.product_id = p.product_id
left join public."VariantRatePlan" as r on r.variant_id = v.variant_id and r.is_active
where p.slug = (select min(s.slug) from public."TourProduct" as s where s.is_active)
order by v.is_default desc, v.variant_id, r.traveler_type;

-- @name tour page: itinerary of a variant
select i.day, i.sort_order, i.title, i.description, i.location, i.start_time, i.end_time, i.duration_minutes
from public."VariantItinerary" as i
where i.variant_id = (select min(v.variant_id) from public."TourVariant" as v)
order by i.day, i.sort_order;

-- @name tour page: gallery of the legacy package
select i.image_id, i.url
from public."TourImage" as i
join public."TourPackage" as p on p.package_id = i.tour_id
order by p.package_id, i.image_id
limit 12;

-- @name calendar: open departures with seats
select d.departure_id, d.departure_code, d.start_date, d.end_date, d.capacity_total - d.capacity_reserved as seats
from public."Departure" as d
where d.is_active and d.status in ('OPEN', 'LIMITED') and d.start_date >= current_date
order by d.start_date
limit 60;

-- @name my bookings: a customer's list
select
    b.booking_id, b.booking_ref, b.booking_date, b.status, b.status_v2, b.total_price, b.currency_code,
    b.number_of_adult, b.number_of_child
from public."Booking" as b
join public."User" as u on u.id = b.user_id
where u.id = (select min(x.user_id) from public."Booking" as x)
order by b.booking_date desc
limit 20;

-- @name booking page: items and travellers
select
    b.booking_id, i.booking_item_id, i.item_status, i.adult_qty, i.child_qty, i.infant_qty, i.subtotal,
    i.discount_amount, i.tax_amount, i.total_amount, i.snapshot, t.traveler_id, t.traveler_type
from public."Booking" as b
join public."BookingItem" as i on i.booking_id = b.booking_id
left join public."BookingTraveler" as t on t.booking_item_id = i.booking_item_id
where b.booking_id = (select max(x.booking_id) from public."Booking" as x);

-- @name checkout: payments of a booking
select
    p.payment_id, p.payment_date, p.amount, p.currency_code, p.payment_method, p.payment_status, p.payment_status_v2,
    p.gateway, p.gateway_order_id, p.gateway_capture_id, p.payment_ref
from public."Payment" as p
where p.booking_id = (select max(x.booking_id) from public."Payment" as x)
order by p.payment_date desc;

-- @name shop dashboard: captured amounts by day
select date_trunc('day', p.payment_date) as day, p.currency_code, count(*) as payments, sum(p.amount) as amount
from public."Payment" as p
where p.payment_status_v2 = 'COMPLETED' and p.payment_date >= now() - interval '30 days'
group by 1, 2
order by 1, 2;

-- @source bstadmin

-- @name bookings: filtered list
select
    b.booking_id, b.booking_ref, b.source, b.status, b.tour_name, b.tour_date, b.tour_time, b.number_of_adult,
    b.number_of_child, b.total_price, b.currency, b.is_paid, b.assigned_driver_id, d.name as driver_name
from public.bookings as b
left join public.drivers as d on d.id = b.assigned_driver_id
where b.status in ('NEW', 'READY', 'ATTENTION') and b.source in ('GYG', 'VIATOR', 'DIRECT')
order by b.tour_date, b.booking_id
limit 50;

-- @name bookings: counters by status
select b.status, count(*) as bookings from public.bookings as b group by b.status;

-- @name booking page: one booking with package and tour
select b.*, p.package_name, t.tour_name as tour
from public.bookings as b
left join public.tour_packages as p on p.package_id = b.package_id
left join public.tours as t on t.tour_id = p.tour_id
where b.booking_id = (select max(x.booking_id) from public.bookings as x);

-- @name booking page: mails that made or changed it
select e.relation_type, m.subject, m.received_at, m.source
from public.booking_emails as e
join public.email_inbox as m on m.id = e.email_id
where e.booking_id = (select max(x.booking_id) from public.booking_emails as x)
order by m.received_at;

-- @name assignment board: tomorrow's tours without a driver
select b.booking_id, b.tour_name, b.tour_time, b.pickup_location, b.number_of_adult + coalesce(b.number_of_child, 0) as pax
from public.bookings as b
where
    b.assigned_driver_id is null
    and b.status not in ('CANCELLED', 'NO_SHOW')
    and b.tour_date >= current_date
    and b.tour_date < current_date + 2
order by b.tour_time, b.booking_id;

-- @name drivers: available ones by priority
select d.id, d.name, d.vehicle_type, d.vehicle_plate, d.rating, d.assignment_count
from public.drivers as d
where d.status = 'AVAILABLE'
order by d.priority_level nulls last, d.assignment_count, d.id;

-- @name finance summary: paid and open amounts by pattern
select
    p.pattern_id, p.name,
    count(distinct f.booking_id) as bookings,
    sum(i.amount) filter (where i.paid) as paid_amount,
    sum(i.amount) filter (where not i.paid) as open_amount
from public.booking_finances as f
join public.booking_finance_items as i on i.booking_finance_id = f.booking_finance_id
left join public.tour_cost_patterns as p on p.pattern_id = f.pattern_id
group by p.pattern_id, p.name
order by bookings desc;

-- @name finance page: items of a booking, with partner and driver
select
    i.finance_item_id, i.name_snapshot, i.direction, i.payee_type, i.unit_type, i.unit_qty, i.unit_price, i.amount,
    i.commission_amount, i.paid, i.paid_at, d.name as driver_name, a.name as partner_name
from public.booking_finance_items as i
join public.booking_finances as f on f.booking_finance_id = i.booking_finance_id
left join public.drivers as d on d.id = i.driver_id
left join public.partners as a on a.partner_id = i.partner_id
where f.booking_id = (select max(x.booking_id) from public.booking_finances as x)
order by i.finance_item_id;

-- @name packages: list with tour and images
select p.package_id, p.package_name, p.slug, p.base_currency, p.price_per_person, t.tour_name, count(i.image_id) as images
from public.tour_packages as p
left join public.tours as t on t.tour_id = p.tour_id
left join public.tour_images as i on i.tour_id = p.package_id
group by p.package_id, t.tour_name
order by p.priority nulls last, p.package_id;

-- @name packages: day plan
select i.day, i.start_time, a.activity_name, a.duration_hours
from public.tour_itineraries as i
join public.activities as a on a.activity_id = i.activity_id
where i.package_id = (select min(x.package_id) from public.tour_itineraries as x)
order by i.day, i.start_time;

-- @name inbox: booking mails that could not be parsed
select m.id, m.subject, m.received_at, m.source, m.error_message
from public.email_inbox as m
where m.is_booking_email and m.error_message is not null
order by m.received_at desc
limit 50;

-- @name audit: last changes
select l.created_at, l.action, l.entity, l.entity_id
from public.audit_logs as l
order by l.created_at desc
limit 100;
