-- sqlfluff:exclude_rules:ST05,ST06,RF04,AL03,AL05,AL08,AM04,AM06,AM09,RF02,RF03,ST04,ST07
-- Which rows of the samples exercise which paragraph of the mapping: `-- @rule paragraph | source | what`, then a
-- query that counts them. At 20,000 bookings and more no count may be 0 (a test holds that).

-- @rule 1 text | bstadmin | zero-width characters and NBSP in names
select count(*) from public.bookings
where main_contact_name ~ E'[\u200b\u2060\ufeff\u00a0\u3000\u2009]';
-- @rule 1 text | balisnap | zero-width characters and NBSP in names
select count(*) from public."Booking"
where main_contact_name ~ E'[\u200b\u2060\ufeff\u00a0\u3000\u2009]';
-- @rule 1 text | balisnap | texts that are empty after the rule
select count(*) from public."Booking"
where note ~ E'^[\\s\u200b]*$' or main_contact_name = E'\u200b';
-- @rule 1 multi-line text | balisnap | descriptions with both line ends and runs of empty lines
select count(*) from public."TourPackage"
where description ~ E'\r\n\r\n\r\n' and description ~ E'\n \n';
-- @rule 1 multi-line text | balisnap | cancellation policies
select count(*) from public."TourVariant"
where cancellation_policy ~ E'\n\\s*\n\\s*\n?';
-- @rule 1 multi-line text | bstadmin | notes
select count(*) from public.bookings
where note ~ E'\n\\s*\n';
-- @rule 1 external ref | balisnap | lower case
select count(*) from public."Booking"
where booking_ref <> upper(booking_ref collate "C");
-- @rule 1 external ref | bstadmin | lower case
select count(*) from public.bookings
where booking_ref <> upper(booking_ref collate "C");
-- @rule 1 external ref | bstadmin | decomposed accents (NFC)
select count(*) from public.bookings
where booking_ref <> normalize(booking_ref, nfc);
-- @rule 1 external ref | bstadmin | joiners (U+200C, U+200D)
select count(*) from public.bookings
where booking_ref ~ E'[\u200c\u200d]';
-- @rule 1 external ref | bstadmin | invisible characters and blanks
select count(*) from public.bookings
where booking_ref ~ E'[\u200b\u2060\ufeff\u00a0 ]';
-- @rule 1 external ref | balisnap | none: BS- is made up
select count(*) from public."Booking"
where booking_ref is null;
-- @rule 1 external ref | bstadmin | none: OPS- is made up
select count(*) from public.bookings
where booking_ref is null;
-- @rule 1 external ref | bstadmin | nothing but blanks
select count(*) from public.bookings
where booking_ref ~ E'^[ \u00a0]+$';
-- @rule 1 external ref | balisnap | a made-up ref equal to a real one
select count(*)
from public."Booking" as b
inner join public."Booking" as o on upper(o.booking_ref collate "C") = 'BS-' || b.booking_id
where b.booking_ref is null;
-- @rule 1 external ref | bstadmin | a made-up ref equal to a real one of its channel
select count(*)
from public.bookings as b
inner join public.bookings as o on upper(o.booking_ref collate "C") = 'OPS-' || b.booking_id and b.source = o.source
where b.booking_ref is null;
-- @rule 1 slug | balisnap | capitals, underscores, edges
select count(*) from public."TourProduct"
where slug ~ '[A-Z_]|^-|-$';
-- @rule 1 slug | balisnap | empty: the slug of the name
select count(*) from public."TourProduct"
where slug = '' and product_name <> '';
-- @rule 1 slug | balisnap | taken after normalisation
select count(*) from public."TourProduct" as a inner join public."TourProduct" as b on a.product_id < b.product_id
where lower(translate(a.slug, '_ ', '--') collate "C") = lower(translate(b.slug, '_ ', '--') collate "C");
-- @rule 1 slug | balisnap | neither slug nor name gives one
select count(*) from public."TourProduct"
where slug = '___' and product_name !~ '[A-Za-z0-9]';
-- @rule 1 name for matching | bstadmin | a name that is empty for matching
select count(*) from public.tour_packages
where package_name = '★★★';
-- @rule 1 currency | balisnap | no three letters
select count(*) from public."Booking"
where currency_code = 'Rp';
-- @rule 1 currency | bstadmin | no three letters
select count(*) from public.bookings
where currency = 'Rp';
-- @rule 1 currency | balisnap | no three letters, in the catalogue
select count(*) from public."TourVariant"
where currency_code = 'Rp';
-- @rule 1 currency | bstadmin | lower case
select count(*) from public.bookings
where currency ~ '^[a-z]{3}$';
-- @rule 1 currency | balisnap | lower case
select count(*) from public."Booking"
where currency_code ~ '^[a-z]{3}$';
-- @rule 1 money | balisnap | NaN
select count(*) from public."Booking"
where total_price = 'NaN';
-- @rule 1 money | bstadmin | NaN
select count(*) from public.bookings
where total_price = 'NaN';
-- @rule 1 money | balisnap | beyond numeric(12,2)
select count(*) from public."Booking"
where total_price >= 1e10 and total_price <> 'NaN';
-- @rule 1 money | balisnap | negative total
select count(*) from public."Booking"
where total_price < 0;
-- @rule 1 money | bstadmin | negative total
select count(*) from public.bookings
where total_price < 0;
-- @rule 1 money | balisnap | NaN of an item
select count(*) from public."BookingItem"
where total_amount = 'NaN';
-- @rule 1 money | balisnap | negative item total
select count(*) from public."BookingItem"
where total_amount < 0;
-- @rule 1 money | balisnap | half cents, away from zero on both sides
select count(*) from public."BookingItem"
where total_amount <> 'NaN' and total_amount <> trunc(total_amount, 2) and discount_amount < 0;
-- @rule 1 money | balisnap | payment amounts: NaN and beyond the type
select count(*) from public."Payment"
where amount = 'NaN' or amount >= 1e10;
-- @rule 1 head counts | balisnap | null children
select count(*) from public."Booking"
where number_of_child is null;
-- @rule 1 head counts | balisnap | negative
select count(*) from public."Booking"
where number_of_adult < 0;
-- @rule 1 head counts | bstadmin | negative
select count(*) from public.bookings
where number_of_adult < 0;
-- @rule 1 head counts | balisnap | negative, of an item
select count(*) from public."BookingItem"
where child_qty < 0;
-- @rule 1 timestamps | bstadmin | infinity: paid_at, assigned_at, updated_at
select count(*) from public.bookings
where 'infinity' in (paid_at, assigned_at, updated_at);
-- @rule 1 timestamps | bstadmin | infinity: validated_at
select count(*) from public.booking_finances
where validated_at = 'infinity';
-- @rule 1 timestamps | balisnap | infinity: rate validity
select count(*) from public."VariantRatePlan"
where valid_to = 'infinity';
-- @rule 1 timestamps | balisnap | infinity: updated_at
select count(*) from public."Booking"
where updated_at = 'infinity';
-- @rule 1 business dates | balisnap | travel days from browsers east and west
select
    least(
        count(*) filter (where booking_date::time > '16:00'),
        count(*) filter (where booking_date::time between '00:01' and '10:00'),
        count(*) filter (where booking_date::time = '12:00')
    )
from public."Booking";
-- @rule 1 business dates | bstadmin | midnight in Bali and midnight in UTC
select least(count(*) filter (where tour_date::time = '16:00'), count(*) filter (where tour_date::time = '00:00'))
from public.bookings;
-- @rule 1 e-mail | balisnap | invalid but real
select count(*) from public."Booking"
where main_contact_email like '%(at)%' or main_contact_email like '% %@%';
-- @rule 1 phone | bstadmin | 00, 0, 62, +620 and what is no number
select
    least(
        count(*) filter (where phone_number like '0062%'),
        count(*) filter (where phone_number like '08%'),
        count(*) filter (where phone_number like '62%'),
        count(*) filter (where phone_number like '+62 0%'),
        count(*) filter (where phone_number = '12345'),
        count(*) filter (where phone_number in ('-', 'n/a', 'NA', 'Unknown'))
    )
from public.bookings;
-- @rule 1 pickup | bstadmin | n/a and unknown
select count(*) from public.bookings
where pickup_location in ('N/A', 'unknown');
-- @rule 1 enum-like | balisnap | payment methods and gateways in any case
select count(*) from public."Payment"
where payment_method = ' PAYPAL' or gateway = 'PayPal ';
-- @rule 1 enum-like | balisnap | country codes in lower case, and none
select least(count(*) filter (where country_code = 'id'), count(*) filter (where country_code is null))
from public."TourProduct";
-- @rule 1 placeholders | bstadmin | names
select count(*) from public.bookings
where lower(main_contact_name collate "C") in ('guest', 'customer', 'unknown', 'cancelled', 'n/a', '-');
-- @rule 1 placeholders | bstadmin | e-mails
select count(*) from public.bookings
where
    lower(main_contact_email collate "C") in (
        'no-email@getyourguide.com', 'cancelled@getyourguide.com', 'no-email@unknown.com'
    );
-- @rule 1 placeholders | balisnap | e-mails
select count(*) from public."Booking"
where main_contact_email in ('test@test.com', 'someone@example.com');
-- @rule 1 too long | balisnap | texts of a booking: name, e-mail, phone
select
    least(
        count(*) filter (where length(main_contact_name) > 191),
        count(*) filter (where length(main_contact_email) > 191),
        count(*) filter (where length(phone_number) > 64)
    )
from public."Booking";
-- @rule 1 too long | bstadmin | texts of a booking: name, e-mail, phone
select
    least(
        count(*) filter (where length(main_contact_name) > 191),
        count(*) filter (where length(main_contact_email) > 191),
        count(*) filter (where length(phone_number) > 64)
    )
from public.bookings;
-- @rule 1 too long | balisnap | texts of a product
select count(*) from public."TourProduct"
where length(product_name) > 255 and length(slug) > 191 and length(category) > 128 and length(region) > 128;
-- @rule 1 too long | balisnap | code and name of a variant
select count(*) from public."TourVariant"
where length(variant_code) > 64 and length(variant_name) > 255;
-- @rule 1 too long | balisnap | payment method and raw status
select least(count(*) filter (where length(payment_method) > 32), count(*) filter (where length(payment_status) > 64))
from public."Payment";
-- @rule 1 too long | balisnap | refs, queued
select count(*) from public."Booking"
where length(booking_ref) > 128;
-- @rule 1 too long | bstadmin | refs, queued
select count(*) from public.bookings
where length(booking_ref) > 128;
-- @rule 1 too long | balisnap | payment refs and capture ids, queued
select
    least(
        count(*) filter (where length(payment_ref) > 128), count(*) filter (where length(gateway_capture_id) > 128)
    )
from public."Payment";
-- @rule 1 needed dates | bstadmin | missing, and outside 1900 to 2199
select
    least(
        count(*) filter (where tour_date = 'infinity'),
        count(*) filter (where tour_date < '1900-01-01'),
        count(*) filter (where created_at = 'infinity')
    )
from public.bookings;
-- @rule 1 needed dates | balisnap | missing, and outside 1900 to 2199
select least(count(*) filter (where booking_date > '2200-01-01'), count(*) filter (where created_at = 'infinity'))
from public."Booking";
-- @rule 1 needed dates | balisnap | a payment without its time
select count(*) from public."Payment"
where payment_date = 'infinity';
-- @rule 1 equal values | balisnap | payment refs that become equal
select count(*)
from public."Payment" as a
inner join public."Payment" as b on btrim(b.payment_ref, E' \u00a0') = a.payment_ref and a.payment_id < b.payment_id;
-- @rule 1 equal values | balisnap | variant codes that become equal
select count(*)
from public."TourVariant" as a
inner join
    public."TourVariant" as b
    on
        a.product_id = b.product_id
        and btrim(b.variant_code, E' \u00a0') = a.variant_code
        and a.variant_id < b.variant_id;
-- @rule 3.1 | balisnap | a product with neither name nor slug, and its variant
select count(*) from public."TourProduct" as p inner join public."TourVariant" as v using (product_id)
where p.slug = '---' and p.product_name ~ E'^[ \u00a0\u200b]+$';
-- @rule 3.1 | bstadmin | a package with neither name nor slug
select count(*) from public.tour_packages
where slug = '' and package_name ~ E'^[ \u200b]+$';
-- @rule 3.1 | balisnap | a product without a name
select count(*) from public."TourProduct"
where product_name = E'\u200b';
-- @rule 3.1 | balisnap | rates: NaN, below 0, and 0
select
    least(
        count(*) filter (where price = 'NaN'), count(*) filter (where price < 0), count(*) filter (where price = 0)
    )
from public."VariantRatePlan";
-- @rule 3.2 level 1 | balisnap | legacy ids of products and of variants
select least(count(p.legacy_package_id), (select count(v.legacy_package_id) from public."TourVariant" as v))
from public."TourProduct" as p;
-- @rule 3.2 level 1 | balisnap | one legacy id at a product and at another's variant (several)
select count(*)
from public."TourProduct" as p
inner join public."TourVariant" as v on p.legacy_package_id = v.legacy_package_id and p.product_id <> v.product_id;
-- @rule 3.2 level 1 | bstadmin | the id says one product, slug and name another
select count(*) from public.tour_packages
where package_id = 504 and slug = 'gili-trawangan-fast-boat';
-- @rule 3.2 level 1 | bstadmin | the id alone, nothing else fits: trusted
select count(*) from public.tour_packages
where package_id = 509;
-- @rule 3.2 level 2 | bstadmin | slugs written differently
select count(*) from public.tour_packages
where slug ~ '[A-Z _]';
-- @rule 3.2 level 3 | bstadmin | names in other case and with decomposed accents
select count(*) from public.tour_packages
where slug like 'pkg-%' and package_name <> normalize(package_name, nfc);
-- @rule 3.2 several | balisnap | two products of one name
select count(*) from public."TourProduct"
where product_id in (903, 904);
-- @rule 3.2 none | bstadmin | packages that match nothing
select count(*) from public.tour_packages
where package_id in (501, 502);
-- @rule 3.2 inactive | balisnap | an inactive product that is matched
select count(*) from public."TourProduct"
where product_id = 916 and not is_active;
-- @rule 3.3 | balisnap | several default variants, one active
select count(
    *) from (
    select product_id from public."TourVariant"
    where is_default
    group by 1
    having count(*) > 1 and count(*) filter (where is_active) = 1
) as two;
-- @rule 3.3 | balisnap | no default and only one variant; no default and several
select least(
    count(*) filter (where variants = 1), count(*) filter (where variants > 1)) from (
    select count(*) as variants from public."TourVariant"
    group by product_id
    having not bool_or(is_default)
) as undecided;
-- @rule 3.4 | bstadmin | a package without a tour; a tour that is switched off
select least((
    select count(*) from public.tour_packages
    where package_id = 501 and tour_id is null), (
    select count(*) from public.tours
    where tour_id = 502 and not is_active
));
-- @rule 3.5 | balisnap | products without description, thumbnail, color or priority
select
    least(
        count(*) - count(short_description),
        count(*) - count(description),
        count(*) - count(thumbnail_url),
        count(*) - count(color_code),
        count(*) - count(priority)
    )
from public."TourProduct";
-- @rule 3.5 | balisnap | old packages without them, too
select
    least(
        count(*) - count(short_description), count(*) - count(thumbnail_url), (select count(*) from public."TourImage")
    )
from public."TourPackage";
-- @rule 3.6 | balisnap | variants without an active rate
select count(*) from public."TourVariant" as v
where not exists (
    select from public."VariantRatePlan" as r
    where r.variant_id = v.variant_id and r.is_active
);
-- @rule 3.6 | bstadmin | their own legacy package without a price here
select count(*) from public.tour_packages
where package_id > 300 and package_id < 500 and price_per_person is null;
-- @rule 3.6 | bstadmin | packages without a child price
select count(*) from public.tour_packages
where price_per_person > 0 and price_per_child is null;
-- @rule 3.7 | balisnap | durations, groups, cutoffs and nights that cannot be
select
    least(
        count(*) filter (where duration_days < 1),
        count(*) filter (where min_pax < 1),
        count(*) filter (where max_pax < min_pax),
        count(*) filter (where booking_cutoff_hours < 0),
        count(*) filter (where duration_nights < 0)
    )
from public."TourVariant";
-- @rule 3.8 | bstadmin | tours of one product, and of several
select least(
    count(*) filter (where n = 1), count(*) filter (where n > 1)) from (
    select count(*) as n from public.tour_packages
    where tour_id is not null
    group by tour_id
) as sizes;
-- @rule 4.1 | bstadmin | bookings of every channel
select case when count(distinct source) = 6 then min(n) else 0 end from (select
    source,
    count(*) as n
from public.bookings
group by source) as each;
-- @rule 4.2 | bstadmin | one ref twice inside bstadmin
select count(
    *) from (
    select source from public.bookings
    where booking_ref is not null
    group by source, btrim(upper(booking_ref collate "C"))
    having count(*) > 1
) as twice;
-- @rule 4.2 | balisnap | one ref twice inside balisnap
select count(
    *) from (
    select 1 from public."Booking"
    where btrim(booking_ref) <> ''
    group by btrim(upper(booking_ref collate "C"))
    having count(*) > 1
) as twice;
-- @rule 4.3 strength 5 | balisnap | captures with an id
select count(*) from public."Payment"
where gateway_capture_id is not null and payment_status_v2 in ('COMPLETED', 'PARTIALLY_REFUNDED');
-- @rule 4.3 strength 4 | balisnap | paid with a payment ref alone
select count(*) from public."Payment"
where gateway_capture_id is null and payment_ref is not null and payment_status_v2 = 'COMPLETED';
-- @rule 4.3 strength 3 | balisnap | paid with neither
select count(*) from public."Payment"
where gateway_capture_id is null and payment_ref is null and payment_status_v2 = 'COMPLETED';
-- @rule 4.3 strength 2, 1, 0 | bstadmin | paid with and without a time, and not paid
select
    least(
        count(*) filter (where is_paid and paid_at is not null),
        count(*) filter (where is_paid and paid_at is null),
        count(*) filter (where not is_paid)
    )
from public.bookings
where source = 'DIRECT';
-- @rule 4.3 strength 1, 0 | balisnap | no payment row: confirmed, and pending
select least(count(*) filter (where status_v2 = 'CONFIRMED'), count(*) filter (where status_v2 = 'PENDING_PAYMENT'))
from public."Booking" as b
where not exists (
    select from public."Payment" as p
    where p.booking_id = b.booking_id
);
-- @rule 4.5 tour_date | balisnap | a departure on another day than the customer entered
select count(*)
from public."BookingItem" as i
inner join public."Departure" as d using (departure_id)
inner join public."Booking" as b using (booking_id)
where (d.start_date + interval '8 hours')::date <> (b.booking_date + interval '12 hours')::date;
-- @rule 4.5 tour_time | balisnap | departures at midnight in Bali (unknown)
select count(*) from public."Departure"
where start_date::time = '16:00';
-- @rule 4.5 tour_time | bstadmin | every accepted shape and refused ones
select
    least(
        count(*) filter (where tour_time = '8:30'),
        count(*) filter (where tour_time = '08.30'),
        count(*) filter (where tour_time = '8:30 AM'),
        count(*) filter (where tour_time = '8 a.m.'),
        count(*) filter (where tour_time = '09:00:00'),
        count(*) filter (where tour_time = 'around noon'),
        count(*) filter (where tour_time = '25:00')
    )
from public.bookings;
-- @rule 4.5 total | balisnap | an item in another currency than its booking
select count(*) from public."BookingItem" as i inner join public."Booking" as b using (booking_id)
where upper(i.currency_code collate "C") <> upper(b.currency_code collate "C");
-- @rule 4.6 | balisnap | meeting points, for bookings without a pickup
select count(*) from public."Booking"
where meeting_point like 'Hotel lobby%';
-- @rule 4.7 | bstadmin | every stored status
select case when count(distinct status) = 8 then min(n) else 0 end from (select
    status,
    count(*) as n
from public.bookings
group by status) as each;
-- @rule 4.7 | bstadmin | finances: all paid, partly paid, without items, validated
select
    least(
        count(*) filter (where items > 0 and items = paid),
        count(*) filter (where paid between 1 and items - 1),
        count(*) filter (where items = 0),
        count(*) filter (where validated_at is not null)
    )
from (
    select
        f.validated_at,
        count(i.finance_item_id) as items,
        count(*) filter (where i.paid) as paid
    from public.booking_finances as f left join public.booking_finance_items as i using (booking_finance_id)
    group by f.booking_finance_id
) as f;
-- @rule 4.7 | bstadmin | stored DONE though not all items are paid (drift)
select count(*) from public.bookings as b
where b.status = 'DONE' and not exists (
    select from public.booking_finances as f inner join public.booking_finance_items as i using (booking_finance_id)
    where f.booking_id = b.booking_id and i.paid
);
-- @rule 4.7 | bstadmin | a driver without a pattern, and neither
select
    least(
        count(*) filter (where b.assigned_driver_id is not null), count(*) filter (where b.assigned_driver_id is null)
    )
from public.bookings as b
left join public.booking_finances as f using (booking_id)
where f.pattern_id is null;
-- @rule 4.7 | balisnap | cancelled, refunded, expired, draft
select
    least(
        count(*) filter (where status_v2 = 'CANCELLED'),
        count(*) filter (where status_v2 = 'REFUNDED'),
        count(*) filter (where status_v2 = 'EXPIRED'),
        count(*) filter (where status_v2 = 'DRAFT')
    )
from public."Booking";
-- @rule 4.8 | balisnap | no item: a product's, a variant's and a bstadmin-only package; one that nobody knows; none
select
    least(
        count(*) filter (where package_id < 300),
        count(*) filter (where package_id > 1000),
        count(*) filter (where package_id = 700),
        count(*) filter (where package_id is null)
    )
from public."Booking" as b
where not exists (
    select from public."BookingItem" as i
    where i.booking_id = b.booking_id
);
-- @rule 4.8 | balisnap | a package that only bstadmin knows by this id
select count(*) from public."Booking" as b inner join public."TourPackage" as k using (package_id)
where package_id < 300 and not exists (
    select from public."TourProduct" as p
    where p.legacy_package_id = package_id) and not exists (
    select from public."BookingItem" as i
    where i.booking_id = b.booking_id
);
-- @rule 4.8 | bstadmin | packages of several matches, of none, and no package
select
    least(
        count(*) filter (where package_id in (503, 504, 505)),
        count(*) filter (where package_id in (501, 502)),
        count(*) filter (where package_id is null)
    )
from public.bookings;
-- @rule 4.9 | balisnap | some items cancelled; all cancelled; none at all
select
    least(
        count(*) filter (where items > cancelled and cancelled > 0),
        count(*) filter (where items > 0 and items = cancelled),
        count(*) filter (where items = 0)
    )
from (
    select
        count(i.booking_item_id) as items,
        count(*) filter (where i.item_status = 'CANCELLED') as cancelled
    from public."Booking" as b left join public."BookingItem" as i using (booking_id)
    group by b.booking_id
) as b;
-- @rule 4.10 | balisnap | travellers with a passport, with a birth date, infants
select least(count(passport_number), count(birth_date), count(*) filter (where traveler_type = 'INFANT'))
from public."BookingTraveler";
-- @rule 4.11 | bstadmin | a driver without the time of the assignment
select count(*) from public.bookings
where assigned_driver_id is not null and assigned_at is null;
-- @rule 5.1 | balisnap | every value of the new status column, and none
select least(min(n), case when count(*) = 8 then 1 else 0 end) from (select
    payment_status_v2,
    count(*) as n
from public."Payment"
group by payment_status_v2) as each;
-- @rule 5.1 | balisnap | old words alone
select case when count(distinct lower(btrim(payment_status) collate "C")) >= 14 then count(*) else 0 end
from public."Payment"
where payment_status_v2 is null;
-- @rule 5.1 | balisnap | words that no list knows
select count(*) from public."Payment"
where payment_status_v2 is null and payment_status in ('on hold', ' ');
-- @rule 5.1 | balisnap | payments of a booking that cannot be bridged
select count(*) from public."Payment" as p inner join public."Booking" as b using (booking_id)
where length(b.booking_ref) > 128;
-- @rule 5.2 | balisnap | full and partial refunds, with and without a sign
select least(count(*) filter (where amount < 0), count(*) filter (where amount > 0)) from public."Payment"
where payment_status_v2 = 'REFUNDED';
-- @rule 5.2 | balisnap | capture and refund at one moment
select count(*)
from public."Payment" as c
inner join public."Payment" as r on c.booking_id = r.booking_id and c.payment_date = r.payment_date
where c.gateway_capture_id is not null and r.payment_status = 'refunded';
-- @rule 5.2 | balisnap | a capture after the refund; a refund without a capture
select least((
    select count(*) from public."Payment" as r inner join public."Payment" as c using (booking_id)
    where r.payment_status = 'refunded' and c.gateway_capture_id is not null and c.payment_date > r.payment_date
),
(
    select count(*) from public."Payment" as r
    where r.payment_status = 'refunded' and not exists (
        select from public."Payment" as c
        where c.booking_id = r.booking_id and c.payment_id <> r.payment_id
    )
));
-- @rule 5.3 | balisnap | a capture that was voided afterwards
select count(*) from public."Payment"
where gateway_capture_id is not null and payment_status_v2 = 'CANCELLED';
-- @rule 5.5 | bstadmin | two forms of one booking, both with a finance
select count(*)
from public.bookings as a
inner join public.bookings as b on b.booking_ref = lower(a.booking_ref collate "C") || ' '
inner join public.booking_finances as fa on a.booking_id = fa.booking_id
inner join public.booking_finances as fb on b.booking_id = fb.booking_id;
-- @rule 5.6 | balisnap | captures inside raw_payload, all agreeing with their row
select
    case
        when
            bool_and(
                (c #>> '{amount,value}')::numeric = p.amount
                and c #>> '{id}' = p.gateway_capture_id
                and c #>> '{amount,currency_code}' = upper(p.currency_code collate "C")
            )
            then count(*)
        else 0
    end
from public."Payment" as p
cross join lateral (select p.raw_payload #> '{purchase_units,0,payments,captures,0}' as c) as x
where x.c is not null;
-- @rule ingest contract, mail | bstadmin | parsed mails, and mails that the parser could not read
select least(count(*) filter (where parsed_data ? 'bookingRef'), count(*) filter (where error_message is not null))
from public.email_inbox;

-- What needs both sources to see (matched by ref): counted by the tests.
