-- sqlfluff:exclude_rules:ST05,ST06,RF04,AL03,AL05,AL08,AM04,AM06,AM09,RF02,RF03,ST04,ST07
-- Fills bstadmin (the back office). Runs after the tables are there and before their constraints are.
-- Which rule of the mapping a peculiarity is for stands beside it; single planted bookings are in
-- quirks_bstadmin.sql.

-- @step people
insert into public.users (
    id, name, email, role, created_at, updated_at, total_bookings, total_cancellations
)
select
    'ops' || lpad(c::text, 4, '0'),
    'Staff ' || c,
    'staff' || c || '@bst.example.net',
    (case when c = 1 then 'ADMIN' when c < 4 then 'MANAGER' else 'STAFF' end)::public."UserRole",
    p.as_of::timestamp - interval '900 days',
    p.as_of::timestamp - interval '9 days',
    0,
    0
from sample.params as p
cross join generate_series(1, 8) as c
union all
select
    'cu' || lpad(to_hex(sample.h(c, 30, p.seed)), 16, '0') || lpad(c::text, 7, '0'),
    sample.person(c, p.seed),
    sample.email(c, p.seed),
    'CUSTOMER',
    p.as_of::timestamp - sample.secs(63072000 - c % 31536000),
    p.as_of::timestamp - interval '9 days',
    0,
    0
from sample.params as p
cross join lateral generate_series(1, p.customers) as c;

insert into public.drivers (
    id,
    name,
    email,
    phone,
    vehicle_type,
    vehicle_plate,
    license_number,
    status,
    rating,
    assignment_count,
    priority_level,
    created_at, updated_at
)
select
    d,
    (array['Wayan', 'Made', 'Nyoman', 'Ketut', 'Putu', 'Kadek', 'Komang'])[1 + d % 7] || ' '
    || (array['Sudarma', 'Arta', 'Wirawan', 'Suasta', 'Gunawan'])[1 + d % 5],
    case when d % 3 <> 0 then 'driver' || d || '@bst.example.net' end,
    '0812' || lpad((sample.h(d, 100, p.seed) % 100000000)::text, 8, '0'),
    (array['Avanza', 'Innova', 'HiAce'])[1 + d % 3],
    'DK ' || 1000 + d || ' AB',
    'SIM' || d,
    (case when d % 11 = 0 then 'INACTIVE' when d % 4 = 0 then 'BUSY' else 'AVAILABLE' end)::public."DriverStatus",
    4 + d % 10 * 0.1,
    0,
    d % 5,
    p.as_of::timestamp - interval '900 days',
    p.as_of::timestamp - interval '5 days'
from sample.params as p
cross join lateral generate_series(1, 25 + p.bookings / 5000) as d;

insert into public.partners (partner_id, name, category, pic_name, pic_whatsapp, is_active, created_at, updated_at)
select
    g,
    'Partner ' || g,
    (array['Restaurant', 'Ticket', 'Activity'])[1 + g % 3],
    'Bu Ayu',
    '08123456' || 100 + g,
    g % 7 <> 0,
    p.as_of::timestamp - interval '900 days',
    p.as_of::timestamp - interval '50 days'
from sample.params as p
cross join generate_series(1, 12) as g;

-- @step catalogue
-- The back office's packages; ids as in common.sql. Planted ones (some in large samples only):
--   501 no tour, matches nothing (3.4, active)           502 tour switched off, matches nothing (3.4, inactive)
--   503 name of two products     504 legacy id of one product, slug and name of another      (3.2, MULTI_MATCH)
--   505 legacy id of a product and of another's variant                                      (3.2, MULTI_MATCH)
--   506 neither name nor slug (3.1)
--   507 name of stars, found by slug                     508 slug of dots, found by name
--   509 legacy id alone agrees and nothing else fits     510 belongs to an inactive product
create temp table package as
select
    k.package_id,
    k.i,
    k.package_name,
    k.slug,
    k.cents,
    k.tour_id,
    k.tour_name
from sample.params as p
cross join lateral (
    select
        i as package_id,
        i,
        case
            -- 3.2, level 3: the same name with other accents, case, blanks and punctuation
            when is_named then upper(replace(replace(name, '&', '-'), 'e', E'e\u0301') collate "C")
            else sample.messy(name, i % 37)
        end as package_name,
        -- 3.2, level 2: the same slug written differently
        case
            when is_named then 'pkg-' || i || '-' || left(slug, 12) when i % 9 = 4 then upper(slug collate "C")
            when i % 9 = 6 then replace(slug, '-', ' ') else slug
        end as slug,
        base_cents + 300 as cents,
        -- 3.8: tours whose packages are all one product's, and tours (i % 3 = 0) that share with their neighbour
        case when i % 13 <> 6 then case when i % 3 = 0 then i - 1 else i end end as tour_id,
        name as tour_name
    from pg_temp.tour
    where not is_web_only
    union all
    -- every other tenth has no price here: the fallback is TourPackage's (3.6)
    select
        300 + i,
        i,
        name || ' incl. Lunch',
        slug || '-incl-lunch',
        case when i % 10 <> 0 then base_cents + 900 end,
        case when i % 3 = 0 then i - 1 else i end,
        name
    from pg_temp.tour
    where is_synced and i % 5 = 0
    union all
    select
        v.package_id,
        null,
        v.package_name,
        v.slug,
        v.cents,
        v.tour_id,
        'Planted tour ' || v.package_id
    from (
        values
        (501, 'Staff charter (by phone)', 'staff-charter', 8000, null, false),
        (502, 'Old Harbour Night Cruise', 'old-harbour-night-cruise', 7000, 502, true),
        (503, E'Nu\u0301sa Lembongan day cruise', 'lembongan-day-cruise-pkg', 5500, 503, false),
        (504, 'Gili Trawangan Fast Boat', 'gili-trawangan-fast-boat', 5500, 503, true),
        (505, 'Melasti Evening', 'melasti-evening', 4500, 505, true),
        (506, E' \u200b', '', 4500, null, true),
        (507, '★★★', 'Star_Gazing--Kintamani', 4500, 505, true),
        (508, 'TARO elephant free forest', '...', 4000, 508, true),
        (509, 'Beach Bike Ride', 'beach-bike-ride', 3500, 509, true),
        (510, 'Mengwi Royal Family Visit', 'mengwi-royal-family', 9500, 510, true)
    ) as v (package_id, package_name, slug, cents, tour_id, needs_full)
    where p.is_full or not v.needs_full
) as k;

insert into public.tours (tour_id, tour_name, slug, description, is_active, created_at, updated_at)
select
    k.tour_id,
    min(k.tour_name collate "C"),
    'tour-' || k.tour_id,
    case when k.tour_id % 2 = 0 then E'Notes for staff.\n\n\nMind the gate.' end,
    k.tour_id <> 502 and k.tour_id % 14 <> 13,
    p.as_of::timestamp - interval '900 days',
    p.as_of::timestamp - interval '60 days'
from sample.params as p
cross join pg_temp.package as k
where k.tour_id is not null
group by k.tour_id, p.as_of
order by k.tour_id;

insert into public.tour_packages (
    package_id, tour_id, package_name, slug, short_description, description, duration_days, price_per_person,
    price_per_child,
    base_currency,
    min_booking,
    max_booking,
    is_featured,
    thumbnail_url,
    color_code,
    priority,
    created_at,
    updated_at
)
select
    k.package_id,
    k.tour_id,
    k.package_name,
    k.slug,
    case when k.package_id % 7 <> 3 then 'Ops: ' || left(k.slug, 40) end,
    -- 3.5: the last source of a description
    case when k.package_id % 4 <> 1 then E'Driver notes\r\n\r\n\r\n  Tickets at the gate. \n' end,
    case when k.package_id % 6 <> 2 then 1 end,
    k.cents * 0.01,
    case when k.package_id % 4 <> 0 then k.cents * 0.006 end,
    case when k.package_id % 15 = 7 then 'usd' else 'USD' end,
    case when k.package_id % 5 = 1 then null when k.package_id % 11 = 3 then 0 else 2 end,
    case when k.package_id % 3 <> 1 then 12 end,
    k.package_id % 10 = 0,
    case when k.package_id % 5 <> 2 then 'https://ops.example.net/img/' || k.package_id || '.jpg' end,
    case when k.package_id % 4 <> 2 then 'teal' end,
    case when k.package_id < 30 then k.package_id * 10 end,
    p.as_of::timestamp - interval '900 days',
    p.as_of::timestamp - sample.secs(sample.pick(k.package_id, 101, p.seed, 30000000))
from sample.params as p
cross join pg_temp.package as k
order by k.package_id;

insert into public.tour_images (image_id, url, tour_id, created_at)
select
    row_number() over (order by k.package_id, g),
    'https://ops.example.net/gallery/' || k.package_id || '-' || g || '.jpg',
    k.package_id,
    p.as_of::timestamp - interval '700 days'
from sample.params as p
cross join pg_temp.package as k
cross join generate_series(1, 2) as g
where k.package_id % 3 <> 0;

insert into public.activities (activity_id, activity_name, duration_hours, base_price, location, created_at, updated_at)
select
    a,
    (
        array[
            'Pick-up', 'Temple visit', 'Rice terrace walk', 'Lunch', 'Swing', 'Waterfall', 'Coffee tasting', 'Drop-off'
        ]
    )[a],
    1.5,
    a * 2.5,
    'Bali',
    p.as_of::timestamp - interval '900 days',
    p.as_of::timestamp - interval '90 days'
from sample.params as p
cross join generate_series(1, 8) as a;

insert into public.tour_itineraries (itinerary_id, package_id, activity_id, start_time, day)
select
    row_number() over (order by k.package_id, g),
    k.package_id,
    1 + (k.package_id + g) % 8,
    (array['08:00', '9.30', '12:00 PM', 'afternoon'])[g],
    1
from pg_temp.package as k
cross join generate_series(1, 4) as g;

insert into public.tour_cost_patterns (pattern_id, package_id, name, is_active, created_at, updated_at)
select
    k.package_id * 2 - g,
    k.package_id,
    case g when 1 then 'Standard' else 'High season' end,
    g = 1,
    p.as_of::timestamp - interval '800 days',
    p.as_of::timestamp - interval '80 days'
from sample.params as p
cross join pg_temp.package as k
cross join generate_series(0, 1) as g
order by 1;

-- @step facts of fulfilment
-- What really happened to each booking, from which driver, finance and the stored status follow (4.7).
create temp table fact as
select
    f.*,
    -- how far the money side of the tour is: all items paid, validated, open, planned, none
    case
        when f.is_cancelled then case when f.roll < 100 then 'open' else 'none' end
        when f.is_no_show then case when f.roll < 500 then 'paid' else 'none' end
        when f.is_past
            then case
                when f.kind = 'X' and f.fate = 'pending' then 'open'
                when
                    f.age > 14
                    then
                        case
                            when f.roll < 970 then 'paid' when f.roll < 990 then 'validated' when
                                f.roll < 996
                                then 'open'
                            else 'none'
                        end
                else
                    case
                        when f.roll < 500 then 'paid' when f.roll < 800 then 'validated' when
                            f.roll < 950
                            then 'open'
                        else 'none'
                    end
            end
        when f.age >= -10 then case when f.roll < 900 then 'planned' else 'none' end
        else case when f.roll < 250 then 'planned' else 'none' end
    end as money,
    case
        when f.is_cancelled then f.driver_roll < 200
        when f.is_past then f.driver_roll < 990
        when f.age >= -10 then f.driver_roll < 850
        else f.driver_roll < 100
    end as has_driver,
    f.received + sample.secs(5 + sample.pick(f.n, 110, f.seed, 600)) as stored_at
from (
    select
        b.*,
        b.as_of - b.tour_day as age,
        b.fate = 'cancelled' as is_cancelled,
        b.fate = 'no_show' and b.is_past as is_no_show,
        sample.pick(b.n, 111, b.seed, 1000) as roll,
        sample.pick(b.n, 112, b.seed, 1000) as driver_roll,
        -- a plan without its pattern: driver alone does not make a booking READY
        case when sample.hit(b.n, 113, b.seed, 9300) then b.package_id * 2 - 1 end as pattern_id,
        -- 4.8: mails whose tour nobody recognised
        b.package_id is null or b.channel <> 'DIRECT' and sample.hit(b.n, 114, b.seed, 200) as has_no_package,
        row_number() over (order by b.n)::integer as finance_rank
    from pg_temp.plan as b
) as f;

-- @step bookings
insert into public.bookings (
    booking_id, booking_ref, user_id, package_id, booking_date, tour_name, tour_date, tour_time, total_price, currency,
    total_price_usd, total_price_idr, fx_rate, fx_date, number_of_adult, number_of_child, status, source,
    main_contact_name, main_contact_email, phone_number, pickup_location, meeting_point, note, assigned_driver_id,
    assigned_at, raw_email_id, is_paid, paid_at, created_at, updated_at
)
select
    f.ops_id,
    -- 1, external ref: none, lower case, invisible characters, decomposed accents
    case
        when f.channel = 'MANUAL' and sample.hit(f.n, 120, f.seed, 2000) then null
        when f.kind = 'O' and f.channel = 'DIRECT' and sample.hit(f.n, 120, f.seed, 500) then null
        when f.channel = 'MANUAL' and sample.hit(f.n, 121, f.seed, 100) then E'Cafe\u0301-' || f.n
        when sample.hit(f.n, 122, f.seed, 100) then lower(f.ref collate "C")
        else case sample.pick(f.n, 123, f.seed, 400)
            when 0 then E'\u200b' || f.ref when 1 then f.ref || E'\u00a0' when 2 then '  ' || f.ref
            when 3 then left(f.ref, 4) || E'\u2060' || substr(f.ref, 5) when 4 then f.ref || E'\ufeff'
            else f.ref
        end
    end,
    case
        when f.channel in ('MANUAL', 'DIRECT') and f.kind = 'O' then 'ops' || lpad((1 + f.n % 8)::text, 4, '0')
        else 'cu' || lpad(to_hex(sample.h(f.cust, 30, f.seed)), 16, '0') || lpad(f.cust::text, 7, '0')
    end,
    case when not f.has_no_package then f.package_id end,
    f.received,
    f.tour_name,
    -- 1, business dates: midnight of a server in Bali, or of one in UTC
    f.tour_day::timestamp - case when sample.hit(f.n, 124, f.seed, 8500) then interval '8 hours' else interval '0' end,
    case
        when f.channel in ('GYG', 'VIATOR', 'TRIPDOTCOM') or sample.hit(f.n, 125, f.seed, 4000)
            then case
                when sample.hit(f.n, 126, f.seed, 9000) then (array['08:00', '08:30', '09:00', '02:00'])[1 + f.n % 4]
                else sample.tour_time(sample.pick(f.n, 127, f.seed, 25))
            end
    end,
    f.total,
    case when sample.hit(f.n, 128, f.seed, 100) then lower(f.currency collate "C") else f.currency end,
    case f.currency
        when 'USD' then f.total when 'IDR' then round(f.total / 16000, 2) when 'EUR' then round(f.total * 1.08, 2)
        else round(f.total * 0.66, 2)
    end,
    null,
    case f.currency when 'IDR' then 16000 when 'USD' then 1 end,
    case when f.currency in ('IDR', 'USD') then f.received end,
    f.adults,
    case when f.c1 = 0 and sample.hit(f.n, 129, f.seed, 3000) then null else f.c1 end,
    -- 4.7: the stored status is what the engine says as of as_of; one in 700 is not (drift)
    (case
        when f.is_cancelled then 'CANCELLED'
        when f.is_no_show then 'NO_SHOW'
        when sample.pick(f.n, 130, f.seed, 700) = 0 then (array['NEW', 'READY', 'ATTENTION', 'UPDATED'])[1 + f.n % 4]
        when f.money = 'paid' then 'DONE'
        when f.money = 'validated' then 'COMPLETED'
        when f.is_past then 'ATTENTION'
        when sample.hit(f.n, 131, f.seed, 500) then 'UPDATED'
        when f.has_driver and f.money = 'planned' and f.pattern_id is not null and not f.has_no_package then 'READY'
        else 'NEW'
    end)::public."BookingStatus",
    f.channel::public."BookingSource",
    -- 4.6: what mail parsers invent
    case
        when
            f.channel <> 'DIRECT' and sample.hit(f.n, 132, f.seed, 150)
            then (array['Guest', 'Customer', 'unknown', 'Cancelled', 'N/A', '-'])[1 + f.n % 6]
        else sample.messy(sample.person(f.cust, f.seed), sample.pick(f.n, 133, f.seed, 400))
    end,
    case
        when sample.hit(f.n, 134, f.seed, 150)
            then (array[
                'no-email@getyourguide.com', 'No-Email@GetYourGuide.com', 'cancelled@getyourguide.com',
                'no-email@unknown.com', 'guest@example.com', '', 'n/a', 'unknown'
            ])[1 + f.n % 8]
        when sample.hit(f.n, 135, f.seed, 50) then (array['traveler@', 'a b@c.com', 'name.at.mail.com'])[1 + f.n % 3]
        when
            f.channel = 'GYG'
            then
                'customer-'
                || lower(sample.code(sample.h(f.n, 136, f.seed) & 1099511627775, 10) collate "C")
                || '@reply.getyourguide.com'
        when
            f.channel = 'VIATOR'
            then 'S-' || (sample.h(f.n, 136, f.seed) % 1000000000)::text || '@expmessaging.tripadvisor.com'
        else sample.email(f.cust, f.seed)
    end,
    sample.phone(sample.h(f.cust, 33, f.seed), sample.pick(f.n, 137, f.seed, 120)),
    case sample.pick(
        f.n, 138, f.seed, 10)
        when 0 then '' when 1 then 'N/A' when 2 then 'unknown'
        else (array['Kuta', 'Ubud', E'Nusa\u00a0Dua', 'Canggu', 'Sanur'])[1 + f.n % 5] || ' hotel, room ' || f.n % 400
    end,
    case sample.pick(f.n, 139, f.seed, 4) when 0 then 'Lobby' when 1 then '-' else '' end,
    case when sample.hit(f.n, 140, f.seed, 1200) then (array[
        'Call on arrival', E'Child seat\r\n\r\n\r\n needed ', 'VIP', 'n/a',
        'Vegetarian lunch please'
    ])[1 + f.n % 5] end,
    case when f.has_driver then 1 + sample.pick(f.n, 141, f.seed, 25 + p.bookings / 5000) end,
    -- 4.11: a driver without the time of the assignment
    case
        when f.has_driver and not sample.hit(f.n, 142, f.seed, 500)
            then least(greatest(f.stored_at, f.tour_day::timestamp - interval '3 days'), f.now_ts)
    end,
    case
        when f.channel in ('GYG', 'VIATOR', 'BOKUN', 'TRIPDOTCOM') and sample.hit(f.n, 143, f.seed, 9500)
            then 'em' || lpad(f.n::text, 10, '0')
    end,
    s.is_paid,
    -- 4.3: payment with and without its time
    case
        when
            s.is_paid
            and (
                f.fate = 'bank'
                or sample.hit(f.n, 144, f.seed, case when f.channel in ('MANUAL', 'DIRECT') then 7000 else 3000 end)
            )
            then least(f.received + sample.secs(sample.pick(f.n, 145, f.seed, 864000)), f.now_ts)
    end,
    f.stored_at,
    f.stored_at + sample.secs(
        greatest(0, extract(epoch from least(f.now_ts, f.tour_day + interval '3 days') - f.stored_at)::bigint)
        * sample.pick(f.n, 146, f.seed, 1000) / 1000
    )
from sample.params as p
cross join pg_temp.fact as f
cross join
    lateral (
        select case
            -- E-02: a few tours were settled before their customer paid
            when f.kind = 'O' and f.n % 2000 = 1731 and f.money = 'paid' then false
            when f.money = 'paid' or f.fate = 'bank' then true
            when f.fate = 'pending' then false
            when f.is_cancelled then sample.hit(f.n, 147, f.seed, 6000)
            when f.channel in ('MANUAL', 'DIRECT') then sample.hit(f.n, 147, f.seed, 8500)
            else sample.hit(f.n, 147, f.seed, 9800)
        end as is_paid
    ) as s
order by f.ops_id;

-- @step finances
insert into public.booking_finances (
    booking_finance_id, booking_id, pattern_id, assigned_at, validated_at, is_locked, notes, created_at, updated_at
)
select
    f.finance_rank,
    f.ops_id,
    case when not f.has_no_package then f.pattern_id end,
    f.stored_at,
    case
        when f.money = 'validated' or f.money = 'paid' and sample.hit(f.n, 150, f.seed, 9000)
            then least(f.tour_day + interval '2 days', f.now_ts)
    end,
    f.money in ('paid', 'validated') and sample.hit(f.n, 151, f.seed, 6000),
    case when sample.hit(f.n, 152, f.seed, 200) then 'checked by accounting' end,
    f.stored_at,
    least(f.stored_at + interval '1 day', f.now_ts)
from pg_temp.fact as f
where f.money <> 'none'
order by f.finance_rank;

insert into public.booking_finance_items (
    finance_item_id,
    booking_finance_id,
    name_snapshot,
    category_name_snapshot,
    is_commission_snapshot,
    direction,
    payee_type,
    unit_type, unit_qty, unit_price, amount, commission_amount, commission_driver_amount, driver_id, partner_id,
    related_item_id, relation_type, paid, paid_at, paid_by, created_at, updated_at
)
select
    f.finance_rank * 3 - 3 + part,
    f.finance_rank,
    (array['Driver fee', 'Entrance tickets', 'Restaurant commission'])[part],
    (array['Transport', 'Ticket', 'Commission'])[part],
    part = 3,
    (case part when 3 then 'INCOME' else 'EXPENSE' end)::public."FinanceDirection",
    (case part when 1 then 'DRIVER' when 2 then 'NONE' else 'PARTNER' end)::public."PayeeType",
    (case part when 1 then 'PER_BOOKING' else 'PER_PAX' end)::public."UnitType",
    case part when 1 then 1 else f.adults end,
    (array[450000, 75000, 30000])[part],
    (array[450000, 75000, 30000])[part] * case part when 1 then 1 else f.adults end,
    case part when 3 then 30000 else 0 end,
    0,
    case when part = 1 then 1 + sample.pick(f.n, 141, f.seed, 25) end,
    case when part = 3 then 1 + (f.n % 12)::integer end,
    case when part = 3 then f.finance_rank * 3 - 2 end,
    case when part = 3 then 'COMMISSION_FOR'::public."FinanceRelationType" end,
    s.is_settled,
    case when s.is_settled then least(f.tour_day + interval '3 days', f.now_ts) end,
    case when s.is_settled then 'ops0002' end,
    f.stored_at,
    least(f.stored_at + interval '2 days', f.now_ts)
from pg_temp.fact as f
cross join generate_series(1, 3) as part
cross join
    lateral (select f.money = 'paid' or f.money in ('validated', 'open') and part = 1 and f.n % 2 = 0 as is_settled)
        as s
where
    f.money <> 'none' and not (f.money = 'planned' and f.n % 8 = 0) and (part < 3 or f.n % 10 = 0)
    and f.quirk is distinct from 'finance-no-items'
order by 1;

-- @step mails
insert into public.email_inbox (
    id,
    message_id,
    subject,
    "from",
    "to",
    received_at,
    body,
    html_body,
    is_booking_email,
    source,
    parsed_data,
    error_message,
    created_at
)
select
    case m.kind when 'CREATED' then 'em' else 'eu' end || lpad(f.n::text, 10, '0'),
    '<' || sample.code(f.n * 131 & 68719476735, 9) || '.' || m.kind || '.' || f.n || '@mail.' || s.domain || '>',
    case m.kind
        when 'CREATED' then 'New booking: ' when 'UPDATED' then 'Booking detail change: ' else 'Booking cancelled: '
    end
    || f.ref,
    'do-not-reply@' || s.domain,
    'bookings@bst.example.net',
    f.received + m.later,
    m.kind || ' ' || f.ref || E'\nTour: ' || f.tour_name || E'\nDate: ' || f.tour_day || E'\nTravellers: ' || f.adults,
    case when f.n % 50 = 0 then '<html><body><p>' || f.ref || '</p></body></html>' end,
    true,
    f.channel::public."BookingSource",
    jsonb_build_object(
        'bookingRef', f.ref, 'status', m.kind, 'tourName', f.tour_name, 'tourDate', f.tour_day::text,
        'tourTime', (array['08:00', '08:30', '09:00', '02:00'])[1 + f.n % 4],
        'numberOfAdult', f.adults, 'numberOfChild', f.c1, 'totalPrice', f.total, 'currency', f.currency,
        'customerName', sample.person(f.cust, f.seed), 'customerEmail', sample.email(f.cust, f.seed),
        'customerPhone', sample.phone(sample.h(f.cust, 33, f.seed), 99)
    ),
    null,
    f.received + m.later + interval '20 seconds'
from pg_temp.fact as f
cross join
    lateral (
        select
            'CREATED' as kind,
            interval '3 seconds' as later
        where sample.hit(f.n, 143, f.seed, 9500)
        union all
        select
            'UPDATED',
            interval '1 hour'
        where f.n % 25 = 0 and not f.is_cancelled
        union all
        select
            'CANCELLED',
            interval '5 hours'
        where f.is_cancelled
    ) as m
cross join
    lateral (
        select case f.channel
            when 'GYG' then 'notification.getyourguide.com' when 'VIATOR' then 't1.viator.com'
            when 'BOKUN' then 'bokun.io' else 'trip.com'
        end as domain
    ) as s
where f.channel in ('GYG', 'VIATOR', 'BOKUN', 'TRIPDOTCOM');

-- mail that books nothing, and mail that the parser could not read
insert into public.email_inbox (
    id,
    message_id,
    subject,
    "from",
    "to",
    received_at,
    body,
    is_booking_email,
    source,
    parsed_data,
    error_message,
    created_at
)
select
    'en' || lpad(g::text, 10, '0'),
    '<news.' || g || '@mail.example.net>',
    case when g % 4 = 0 then 'Booking' else 'Your weekly performance' end,
    'news@getyourguide.com',
    'bookings@bst.example.net',
    p.as_of::timestamp - g * interval '1 hour',
    'Hello partner',
    g % 4 = 0,
    'GYG',
    null,
    case when g % 4 = 0 then 'no booking reference found' end,
    p.as_of::timestamp - g * interval '1 hour'
from sample.params as p
cross join lateral generate_series(1, 10 + p.bookings / 50) as g;

insert into public.booking_emails (id, booking_id, email_id, relation_type, created_at)
select
    row_number() over (order by f.ops_id, m.kind collate "C"),
    f.ops_id,
    case m.kind when 'CREATED' then 'em' else 'eu' end || lpad(f.n::text, 10, '0'),
    m.kind::public."RelationType",
    f.stored_at
from pg_temp.fact as f
cross join
    lateral (
        select 'CREATED' as kind
        where sample.hit(f.n, 143, f.seed, 9500)
        union all
        select 'UPDATED'
        where f.n % 25 = 0 and not f.is_cancelled
        union all
        select 'CANCELLED'
        where f.is_cancelled
    ) as m
where f.channel in ('GYG', 'VIATOR', 'BOKUN', 'TRIPDOTCOM');

-- @step audit trail
insert into public.audit_logs (
    id, user_id, action, entity, entity_id, old_value, new_value, ip_address, user_agent, created_at
)
select
    'al' || lpad(f.n::text, 10, '0'),
    'ops' || lpad((1 + f.n % 8)::text, 4, '0'),
    'UPDATE',
    'Booking',
    f.ops_id::text,
    jsonb_build_object('status', 'NEW'),
    jsonb_build_object('status', 'READY'),
    '10.0.0.' || f.n % 250,
    null,
    least(f.stored_at + interval '3 hours', f.now_ts)
from pg_temp.fact as f
where f.n % 10 = 1;
