-- sqlfluff:exclude_rules:ST05,ST06,RF04,AL03,AL05,AL08,AM04,AM06,AM09,RF02,RF03,ST04,ST07
-- What both sample sources are made from: helpers, one row of parameters, the catalogue's skeleton and the
-- booking plan. Run in each of the two databases; the same (bookings, seed, as_of) gives the same plan in both,
-- so a booking that stands in both sources agrees with itself without the two databases ever talking.
-- Nothing here depends on locale, time zone or search_path: pseudo-random numbers are hashes of a row's number,
-- times are `timestamp` without zone (UTC by the sources' convention), no random(), now() or float arithmetic.

-- @step helpers
create function sample.h(n bigint, salt integer, seed bigint) returns bigint
language sql immutable parallel safe as $$
  select pg_catalog.hashint8extended(n, seed * 4096 + salt) & 9223372036854775807
$$;

create function sample.pick(n bigint, salt integer, seed bigint, k integer) returns integer
language sql immutable parallel safe as $$ select (sample.h(n, salt, seed) % k)::integer $$;

-- true for `rate` of 10,000 rows
create function sample.hit(n bigint, salt integer, seed bigint, rate integer) returns boolean
language sql immutable parallel safe as $$ select sample.h(n, salt, seed) % 10000 < rate $$;

-- capitals and digits as booking platforms print them; one to one with m below 16 ^ digits
create function sample.code(m bigint, digits integer) returns text
language sql immutable parallel safe as $$
  select translate(lpad(to_hex(m), digits, '0'), '0123456789abcdef', 'K7RW2XMPB4TZ9QHD')
$$;

create function sample.secs(s bigint) returns interval
language sql immutable parallel safe as $$ select s * interval '1 second' $$;

-- mapping 1, text: the white space and invisible characters that people paste; rolls 0 to 6 of many
create function sample.messy(t text, roll integer) returns text
language sql immutable parallel safe as $$
  select case roll
    when 0 then E'\u200b' || t
    when 1 then replace(t, ' ', E'\u00a0')
    when 2 then E'  \t' || t || E'\u3000'
    when 3 then t || E'\ufeff'
    when 4 then replace(t, ' ', E' \u2009 ')
    when 5 then left(t, 2) || E'\u2060' || substr(t, 3)
    when 6 then t || E'\r\n'
    else t end
$$;

create function sample.first_name(h bigint) returns text
language sql immutable parallel safe as $$
  select (array['Emma', 'Liam', 'Olivia', 'Noah', 'José', 'Zoë', 'François', 'Søren', 'Łukasz', 'Björk', 'Chloé',
    'Jürgen', 'Wayan', 'Made', 'Nyoman', 'Ketut', 'Priya', 'Arjun', 'Mei', 'Yuki', '佐藤', 'Иван', 'Thị Hương',
    'Aoife', 'Siobhán', 'Mateus', 'Inês', 'Óscar', 'Fatima', 'Yusuf', 'Hannah', 'Lukas', 'Sofia', 'Marco',
    'Giulia', 'Pierre', 'Anaïs', 'Jack', 'Charlotte', 'Ava', 'Ethan', 'Mia', 'Jin', 'Min-ji', 'Anneke', 'Pieter',
    'Katarzyna', 'Tomáš'])[1 + h % 48]
$$;

create function sample.last_name(h bigint) returns text
language sql immutable parallel safe as $$
  select (array['Smith', 'Johnson', 'Müller', 'García', 'Nguyễn', 'O''Connor', 'Dubois', 'Rossi', 'Kowalski', 'Tan',
    'Lee', 'Kim', 'Suzuki', 'van der Berg', 'de Souza', 'Petrov', 'Hansen', 'Åkesson', 'Wijaya', 'Santoso',
    'Patel', 'Sharma', 'Khan', 'Brown', 'Taylor', 'Wilson', 'McDonald', 'Núñez', 'Silva', 'Costa', 'Schmidt',
    'Weber', 'Moreau', 'Lefèvre', 'Bianchi', 'Novák', 'Horváth', 'Popescu', 'Ivanova', '山田', 'Chen', 'Wang'])[1 + h % 42]
$$;

create function sample.person(cust bigint, seed bigint) returns text
language sql immutable parallel safe as $$
  select sample.first_name(sample.h(cust, 11, seed)) || ' ' || sample.last_name(sample.h(cust, 12, seed))
$$;

create function sample.email(cust bigint, seed bigint) returns text
language sql immutable parallel safe as $$
  select (array['emma', 'liam', 'jose', 'zoe.travels', 'Francois', 'soren', 'lukasz', 'JohnSmith', 'mei_lin', 'yuki',
      'ivan', 'oscar', 'h.weber', 'inês', 'PRIYA', 'wanderer', 'the.browns', 'kim'])[1 + sample.pick(cust, 13, seed, 18)]
    || cust
    || (array['@gmail.com', '@gmail.com', '@gmail.com', '@outlook.com', '@yahoo.co.uk', '@icloud.com', '@web.de',
      '@GMAIL.com', '@orange.fr', '@naver.com'])[1 + sample.pick(cust, 14, seed, 10)]
$$;

-- mapping 1, phone: every shape that the rule names (0 to 16), then a usual one
create function sample.phone(h bigint, roll integer) returns text
language sql immutable parallel safe as $$
  select case roll
    when 0 then '0812-3' || lpad((h % 1000)::text, 3, '0') || '-7890'
    when 1 then '0062 812 34' || lpad((h % 100000)::text, 5, '0')
    when 2 then '62812345' || lpad((h % 100000)::text, 5, '0')
    when 3 then '+62 0812 34' || lpad((h % 100000)::text, 5, '0')
    when 4 then '+1 (415) 555-' || lpad((h % 10000)::text, 4, '0')
    when 5 then '+61' || E'\u00a0' || '412' || E'\u00a0' || lpad((h % 1000000)::text, 6, '0')
    when 6 then 'WA: +33 6 ' || lpad((h % 100000000)::text, 8, '0')
    when 7 then 'n/a'
    when 8 then '-'
    when 9 then 'Unknown'
    when 10 then 'NA'
    when 11 then '12345'
    when 12 then 'ask at hotel'
    when 13 then '+44+20 7946 ' || lpad((h % 10000)::text, 4, '0')
    when 14 then '6212345'
    when 15 then '+1234567890123456789'
    when 16 then E'\u0660\u0661\u0662 +971 50 ' || lpad((h % 10000000)::text, 7, '0')
    when 17 then ''
    else '+' || (array['1415', '4479', '4915', '336', '3934', '614', '628', '8190', '8210', '659', '3161', '4477'])
           [1 + h % 12] || lpad((h % 9999999)::text, 8, '5')
  end
$$;

-- mapping 4.5, tour_time: all accepted shapes and some that are not
create function sample.tour_time(roll integer) returns text
language sql immutable parallel safe as $$
  select (array['08:00', '8:30', '08.30', '8:30 AM', '8 a.m.', '09:00:00', '9.15.00', '2:30 pm', '3 PM', '12 AM',
    '12:00 P.M.', '02:00', '8:00am', 'around noon', 'morning', '25:00', '8:75', '', '0830', '08:30 - 09:00',
    '7 p.m', '00:00', '13 PM', E'\u200b08:15', 'TBC'])[1 + roll % 25]
$$;

-- @step parameters
-- sample.input is one row: bookings, seed, as_of, and the kinds of booking that this database holds.
create table sample.params as
select
    *,
    -- the shop's history makes its catalogue, so a larger sample has a somewhat larger one
    products * 11 / 20 as synced,
    products * 15 / 20 as slugged,
    products * 18 / 20 as named,
    -- packages that the catalogue cannot place, or places oddly (see bstadmin.sql); few of them in a small sample
    case
        when is_full then array[501, 502, 503, 504, 505, 507, 508, 509, 510]
        else array[501, 503]
    end as special_packages
from (
    select
        *,
        case when bookings < 2000 then 40 when bookings < 10000 then 70 when bookings < 100000 then 120 else 160 end
            as products,
        -- all of the catalogue's rare cases, where they weigh little enough
        bookings >= 10000 as is_full,
        40 + bookings / 4 as customers
    from sample.input
) as sized;

-- @step the catalogue's skeleton
-- One row per regular tour i. How its back-office package finds it (mapping 3.2) depends on i alone:
--   i <= synced            product-level legacy id = package id, slug and name agree        level 1
--   synced < i <= slugged  no legacy id; the slug agrees                                    level 2
--   slugged < i <= named   no legacy id, another slug; the name agrees up to accents, case  level 3
--   i > named              sold on the web only (its TourPackage is 1000 + i)               no package
-- Packages 300 + i (i <= synced, i % 5 = 0) sell variant 2 of their product by the variant's legacy id.
create temp table tour as
select
    i,
    (array[
        'Ubud Monkey Forest', 'Tegallalang Rice Terrace', 'Mount Batur Sunrise', 'Nusa Penida West', 'Nusa Penida East',
        'Uluwatu Temple & Kecak',
        'Tanah Lot Sunset',
        'Lempuyang Gate of Heaven',
        'Tirta Gangga Water Palace',
        'Sekumpul Waterfall',
        'Bedugul & Ulun Danu',
        'Jatiluwih Heritage',
        'Penglipuran Village',
        'Besakih Mother Temple',
        'Kintamani Volcano',
        'Ayung River Rafting', 'Telaga Waja Rafting', 'ATV Jungle Track', 'Blue Lagoon Snorkeling', 'Lovina Dolphins',
        'Munduk Trekking', 'Sidemen Valley', 'Amed & Jemeluk Bay', 'Canggu Café Hopping', 'Seminyak Food Walk',
        'Jimbaran Seafood Dinner',
        'Ubud Cooking Class',
        'Batik & Silver Workshop',
        'Goa Gajah & Tampaksiring',
        'Tegenungan Waterfall',
        'Leke Leke Waterfall', 'West Bali National Park', 'Menjangan Island', 'Lembongan Mangrove', 'Bali Swing',
        'Handara Gate', 'Instagram Highlights', 'Balinese Désa Life', 'Airport Transfer', 'Yoga & Spa Retreat'
    ])[1 + (i - 1) % 40] as place,
    (array['Private Tour', 'Full-Day Experience', 'Photography Trip', 'with Local Guide'])[
        1 + ((i - 1) / 40 + (i - 1) % 40) % 4
    ] as style,
    ''::text as name,
    ''::text as slug,
    2500 + (i * 737) % 9500 / 50 * 50 as base_cents,
    i <= p.synced as is_synced,
    i > p.synced and i <= p.slugged as is_slugged,
    i > p.slugged and i <= p.named as is_named,
    i > p.named as is_web_only
from sample.params as p
cross join lateral generate_series(1, p.products) as i;

update pg_temp.tour set name = place || ' ' || style;
update pg_temp.tour
set slug = trim('-' from regexp_replace(
    lower(translate(name, 'éÉ', 'ee') collate "C"), '[^a-z0-9]+', '-', 'g'
));

-- Variant j of tour i has the id i * 10 + j. Tours with i % 20 = 9 have one variant, not marked as default.
create temp table offer as
select
    t.i * 10 + j as variant_id,
    t.i,
    j,
    t.base_cents + 500 * j as cents,
    case
        when t.is_synced and t.i % 5 = 0 and j = 2 then 300 + t.i
        when not t.is_web_only then t.i
    end as package_id
from pg_temp.tour as t
cross join lateral generate_series(1, case when t.i % 20 = 9 then 1 when t.i % 7 = 0 then 6 else 5 end) as j;

-- What customers choose from: web_rank over all, ops_rank over those that the back office has as a package.
create temp table menu as
select
    o.*,
    t.name,
    row_number() over (order by o.j, o.variant_id)::integer as web_rank,
    case
        when o.package_id is not null
            then (row_number() over (partition by o.package_id is null order by o.j, o.variant_id))::integer
    end as ops_rank
from pg_temp.offer as o
inner join pg_temp.tour as t using (i)
where o.j <= 4;

-- @step the rare cases' places
-- Rare cases are planted: each name below owns one booking in every 20,000, so that their share is the
-- same at any size, small samples hold a handful at most, and 20,000 bookings hold all. `kind` says where the
-- booking stands: B balisnap alone, O bstadmin alone, X both. What a case means: quirks_{balisnap,bstadmin}.sql.
create temp table quirk_place as
select
    name,
    kind,
    -- 37 and 1,000 have no common factor: every place is taken once, and neighbours lie far apart
    20 * ((37 * row_number() over (order by ordinal)) % 1000)
    + case kind when 'B' then 3 when 'O' then 11 else 19 end as place
from (
    select
        name,
        kind,
        ordinal
    from
        unnest(array[
            'O:ref-too-long', 'B:ref-too-long', 'X:cancelled-there', 'O:tour-date-infinity',
            'B:total-nan', 'O:total-nan', 'X:refunded-there', 'B:total-negative',
            'O:total-negative', 'X:date-conflict', 'B:total-beyond', 'O:currency-rp',
            'B:currency-rp', 'X:total-conflict', 'O:name-too-long', 'B:name-too-long',
            'X:other-currency', 'O:email-too-long', 'B:email-too-long', 'O:phone-too-long',
            'X:one-cent', 'B:phone-too-long', 'O:made-up-ref', 'B:made-up-ref',
            'X:tie-updated', 'O:tour-date-0202', 'B:travel-day-2225', 'X:ops-later',
            'O:created-infinity', 'B:created-infinity', 'X:both-zero', 'O:blank-ref',
            'B:blank-ref', 'X:updated-infinity', 'O:adults-negative', 'B:adults-negative',
            'X:three-candidates', 'O:paid-at-infinity', 'B:items-all-cancelled', 'X:finance-twice',
            'O:assigned-infinity', 'B:item-other-currency', 'X:ops-pax', 'O:validated-infinity',
            'B:item-total-nan', 'X:strength-4', 'O:ref-zwj', 'B:item-total-negative',
            'X:strength-3', 'O:ref-nfd', 'B:item-half-cent', 'X:child-from-next',
            'O:finance-no-items', 'B:payment-status-unknown', 'X:refund-recapture', 'O:dup-later',
            'B:dup-later', 'X:placeholder-later', 'O:dup-conflict', 'B:payment-ref-twice',
            'O:drift-ready', 'B:payment-ref-too-long', 'O:drift-done', 'B:payment-nan',
            'O:drift-new', 'B:payment-currency-rp', 'X:deposit', 'B:payment-date-infinity',
            'O:empty-contact', 'B:payment-method-long', 'X:invalid-email-later', 'B:refund-without-capture',
            'O:dup-equal', 'B:payment-status-long', 'O:multi-package', 'B:updated-infinity',
            'O:dup-finance', 'B:no-package', 'B:web-package-as-ops', 'B:unknown-package',
            'B:item-negative-qty', 'B:capture-voided', 'B:refund-equal-time', 'B:capture-too-long',
            'B:payment-status-blank', 'B:payment-beyond', 'O:note-lines', 'X:same-note'
        ]) with ordinality as listed (entry, ordinal)
    cross join lateral (
        select
            split_part(entry, ':', 1) as kind,
            split_part(entry, ':', 2) as name
    ) as parts
) as places;

-- @step the plan of the bookings
-- Of every 20 bookings 6 are balisnap's alone, 13 bstadmin's alone, 1 stands in both.
-- sample.input.kinds is 'BX' in balisnap and 'OX' in bstadmin.
create temp table plan as
with numbered as (
    select
        n::bigint as n,
        (n - 1) / 20 as q,
        (n - 1) % 20 as r,
        case when (n - 1) % 20 < 6 then 'B' when (n - 1) % 20 < 19 then 'O' else 'X' end as kind
    from sample.params as p
    cross join lateral generate_series(1, p.bookings) as n
),

basics as (
    select
        b.n,
        b.kind,
        p.seed,
        p.as_of,
        p.as_of::timestamp as now_ts,
        (b.q * 7 + least(b.r + 1, 7))::integer as bal_id,
        (b.q * 14 + b.r - 5)::integer as ops_id,
        1 + sample.pick(b.n, 1, p.seed, p.customers) as cust,
        -- two years, evenly, the last booking just before as_of
        p.as_of::timestamp - interval '730 days' + sample.secs(b.n * 63072000 / (p.bookings + 1))
        + sample.pick(b.n, 2, p.seed, 1000) * interval '1 millisecond' as received,
        -- short notice is common, half a year ahead is not
        sample.pick(b.n, 3, p.seed, 60) * sample.pick(b.n, 4, p.seed, 60) / 40
        * case when sample.hit(b.n, 5, p.seed, 400) then 3 else 1 end as lead_days,
        -- a planted booking is otherwise a plain one: paid, with one item
        qp.name as quirk,
        case when qp.name is not null then 500 else sample.pick(b.n, 6, p.seed, 1000) end as fate_roll,
        sample.pick(b.n, 7, p.seed, 100) as channel_roll,
        -- the lesser of two picks: the first tours of the menu sell best
        1 + least(sample.pick(b.n, 8, p.seed, m.web_menu), sample.pick(b.n, 9, p.seed, m.web_menu)) as web_pick,
        1 + least(sample.pick(b.n, 8, p.seed, m.ops_menu), sample.pick(b.n, 9, p.seed, m.ops_menu)) as ops_pick,
        case
            when sample.hit(b.n, 10, p.seed, 60)
                then p.special_packages[1 + sample.pick(b.n, 15, p.seed, cardinality(p.special_packages))]
        end as special,
        case sample.pick(b.n, 16, p.seed, 20) when 0 then 'EUR' when 1 then 'AUD' when 2 then 'IDR' else 'USD' end
            as currency,
        1 + least(sample.pick(b.n, 17, p.seed, 6), sample.pick(b.n, 18, p.seed, 6)) as a1,
        case when sample.hit(b.n, 19, p.seed, 2500) then 1 + sample.pick(b.n, 20, p.seed, 3) else 0 end as c1,
        case when sample.hit(b.n, 21, p.seed, 500) then 1 else 0 end as i1,
        -- 2 a second item that is carried, 1 a second item that was cancelled, 0 none
        case
            when b.kind <> 'O' and qp.name is null
                then
                    case
                        when sample.hit(b.n, 22, p.seed, 700) then 2 when sample.hit(b.n, 23, p.seed, 300) then 1 else 0
                    end
            else 0
        end as second,
        1 + sample.pick(b.n, 24, p.seed, 2) as a2,
        b.kind <> 'O' and (qp.name is not null or not sample.hit(b.n, 25, p.seed, 1200)) as has_item
    from numbered as b
    cross join sample.params as p
    cross join (select
        max(web_rank) as web_menu,
        max(ops_rank) as ops_menu
    from pg_temp.menu) as m
    left join pg_temp.quirk_place as qp on b.kind = qp.kind and qp.place = (b.n - 1) % 20000
    where strpos(p.kinds, b.kind) > 0
    offset 0
),

priced as (
    select
        s.*,
        (s.received + interval '8 hours')::date + s.lead_days as tour_day,
        coalesce(w.variant_id, o.variant_id) as variant_id,
        coalesce(w.i, o.i) as i,
        coalesce(w.name, o.name) as tour_name,
        coalesce(s.special, w.package_id, o.package_id) as package_id,
        case s.currency
            when 'IDR' then round(coalesce(w.cents, o.cents) * 160, -3)
            when 'EUR' then round(coalesce(w.cents, o.cents) * 0.0092, 2)
            when 'AUD' then round(coalesce(w.cents, o.cents) * 0.015, 2)
            else coalesce(w.cents, o.cents) * 0.01
        end::numeric(12, 2) as adult_price
    from basics as s
    left join pg_temp.menu as w on s.kind <> 'O' and s.web_pick = w.web_rank
    left join pg_temp.menu as o on s.kind = 'O' and s.ops_pick = o.ops_rank
    offset 0
),

summed as (
    select
        s.*,
        round(s.adult_price * 0.6, case when s.currency = 'IDR' then -3 else 2 end) as child_price,
        s.tour_day <= s.as_of as is_past,
        s.a1 * s.adult_price + s.c1 * round(s.adult_price * 0.6, case when s.currency = 'IDR' then -3 else 2 end)
            as subtotal1,
        s.a2 * s.adult_price as total2,
        case when sample.hit(s.n, 26, s.seed, 500) then round(s.adult_price * 0.1, 2) else 0 end as discount,
        case when sample.hit(s.n, 27, s.seed, 300) then round(s.adult_price * 0.11, 2) else 0 end as tax,
        case
            when s.kind = 'B'
                then case
                    when s.fate_roll < 800 then 'paid' when s.fate_roll < 830 then 'refunded'
                    when s.fate_roll < 850 then 'partial' when s.fate_roll < 890 then 'pending'
                    when s.fate_roll < 920 then 'cancelled' when s.fate_roll < 950 then 'expired'
                    when s.fate_roll < 965 then 'failed' when s.fate_roll < 980 then 'draft' else 'confirmed'
                end
            when s.kind = 'X'
                then case
                    when s.fate_roll < 900 then 'paid' when s.fate_roll < 950 then 'bank'
                    when s.fate_roll < 970 then 'pending' else 'cancelled'
                end
            else case
                when s.fate_roll < 60 then 'cancelled' when s.fate_roll < 67 then 'no_show' else 'active'
            end
        end as fate,
        case
            when s.kind <> 'O' then 'DIRECT'
            when s.channel_roll < 38 then 'GYG' when s.channel_roll < 66 then 'VIATOR'
            when s.channel_roll < 78 then 'BOKUN' when s.channel_roll < 84 then 'TRIPDOTCOM'
            when s.channel_roll < 94 then 'MANUAL' else 'DIRECT'
        end as channel
    from priced as s
)

select
    s.*,
    s.subtotal1 - s.discount + s.tax as total1,
    s.subtotal1 - s.discount + s.tax + case when s.has_item and s.second = 2 then s.total2 else 0 end as total,
    s.a1 + case when s.has_item and s.second = 2 then s.a2 else 0 end as adults,
    -- references in the shapes that the platforms use; one to one with n
    case s.channel
        when 'GYG' then 'GYG' || sample.code((s.n * 387420489 + s.seed * 7919) & 68719476735, 9)
        when 'VIATOR' then 'BR-' || lpad(((s.n * 387420489 + s.seed) % 10000000000)::text, 10, '0')
        when 'BOKUN' then 'BAL-T' || lpad(((s.n * 387420489 + s.seed) % 100000000)::text, 8, '0')
        when 'TRIPDOTCOM' then '112813' || lpad(((s.n * 387420489 + s.seed) % 10000000000)::text, 10, '0')
        when 'MANUAL'
            then
                'WA-' || extract(year from s.received)::integer || '-'
                || lpad(s.n::text, greatest(6, length(s.n::text)), '0')
        else 'BSN-' || sample.code((s.n * 387420489 + s.seed * 104729) & 4294967295, 8)
    end as ref
from summed as s;

create index on pg_temp.plan (quirk) where quirk is not null;
analyze pg_temp.plan;
