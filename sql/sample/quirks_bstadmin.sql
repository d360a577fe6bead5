-- sqlfluff:exclude_rules:ST05,ST06,RF04,AL03,AL05,AL08,AM04,AM06,AM09,RF02,RF03,ST04,ST07
-- The rare cases of bstadmin, by the names of common.sql, each with the paragraph of the mapping that it is for.
-- Runs after the constraints.

-- @step rare cases
create temp table quirky as
select
    n,
    kind,
    quirk,
    seed,
    ops_id,
    ref,
    total,
    currency,
    adults,
    received,
    is_past,
    tour_day,
    cust,
    money,
    stored_at
from pg_temp.fact
where quirk is not null;
analyze pg_temp.quirky;
-- fresh statistics: each statement below looks for a few rows by their ids
analyze public.bookings;
analyze public.booking_finances;
analyze public.booking_finance_items;

-- 1: a ref longer than its column is queued; a ref of nothing but blanks is none; joiners go; decomposed accents
update public.bookings b set
    booking_ref = case q.quirk
        when 'ref-too-long' then q.ref || repeat('-FWD', 35)
        when 'blank-ref' then repeat(' ', 1 + (q.n / 20000)::integer) || E'\u00a0'
        when 'ref-zwj' then left(q.ref, 3) || E'\u200d' || substr(q.ref, 4) || E'\u200c'
        else E'Ketut\u0300 Agung-' || q.n
    end
from pg_temp.quirky as q
where q.quirk in ('ref-too-long', 'blank-ref', 'ref-zwj', 'ref-nfd') and q.kind = 'O' and b.booking_id = q.ops_id;
-- 1: a made-up ref equal to a real one of the same channel (the neighbour bears it)
update public.bookings b set booking_ref = null, source = 'MANUAL'
from pg_temp.quirky as q
where q.quirk = 'made-up-ref' and q.kind = 'O' and b.booking_id = q.ops_id;
update public.bookings b set booking_ref = 'Ops-' || q.ops_id, source = 'MANUAL'
from pg_temp.quirky as q
where q.quirk = 'made-up-ref' and q.kind = 'O' and b.booking_id = q.ops_id + 1;
-- 1, money and currency
update public.bookings b set total_price = case q.quirk when 'total-nan' then 'NaN' else -q.total end
from pg_temp.quirky as q
where q.quirk in ('total-nan', 'total-negative') and q.kind = 'O' and b.booking_id = q.ops_id;
update public.bookings b set currency = 'Rp', total_price = 500000
from pg_temp.quirky as q
where q.quirk = 'currency-rp' and q.kind = 'O' and b.booking_id = q.ops_id;
-- 1, too long for its column: cut and reviewed
update public.bookings b set main_contact_name = repeat('Maria de los Ángeles ', 10) || 'García'
from pg_temp.quirky as q
where q.quirk = 'name-too-long' and q.kind = 'O' and b.booking_id = q.ops_id;
update public.bookings b set main_contact_email = repeat('very.long.', 20) || q.n || '@gmail.com'
from pg_temp.quirky as q
where q.quirk = 'email-too-long' and q.kind = 'O' and b.booking_id = q.ops_id;
update public.bookings b set
    phone_number = 'mine +61 412 000 111, wife +61 412 000 222, son +61 412 000 333, hotel 0361 000444'
from pg_temp.quirky as q
where q.quirk = 'phone-too-long' and q.kind = 'O' and b.booking_id = q.ops_id;
-- 1: needed dates that are missing or outside 1900 to 2199 are queued; other infinities are null
update public.bookings b set
    tour_date = case q.quirk when 'tour-date-infinity' then 'infinity'::timestamp else '0202-05-14 16:00'::timestamp end
from pg_temp.quirky as q
where q.quirk in ('tour-date-infinity', 'tour-date-0202') and b.booking_id = q.ops_id;
update public.bookings b set created_at = 'infinity'
from pg_temp.quirky as q
where q.quirk = 'created-infinity' and q.kind = 'O' and b.booking_id = q.ops_id;
update public.bookings b set updated_at = 'infinity'
from pg_temp.quirky as q
where q.quirk = 'updated-infinity' and q.kind = 'X' and b.booking_id = q.ops_id;
update public.bookings b set is_paid = true, paid_at = 'infinity'
from pg_temp.quirky as q
where q.quirk = 'paid-at-infinity' and b.booking_id = q.ops_id;
update public.bookings b set assigned_driver_id = 1, assigned_at = 'infinity'
from pg_temp.quirky as q
where q.quirk = 'assigned-infinity' and b.booking_id = q.ops_id;
-- 1, head counts: negative is 0
update public.bookings b set number_of_adult = -2, number_of_child = -1
from pg_temp.quirky as q
where q.quirk = 'adults-negative' and q.kind = 'O' and b.booking_id = q.ops_id;
-- 4.4: notes of several lines
update public.bookings b set note = E'\n Driver: call first. \r\n\r\n\r\n\u200b\nGate code\u00a01234\n\n'
from pg_temp.quirky as q
where q.quirk = 'note-lines' and b.booking_id = q.ops_id;
-- 1 and 4.6: no contact at all
update public.bookings b set
    main_contact_name = '',
    main_contact_email = E'\u200b',
    phone_number = '',
    pickup_location = 'N/A',
    meeting_point = ' '
from pg_temp.quirky as q
where q.quirk = 'empty-contact' and b.booking_id = q.ops_id;
-- 4.8: a package that matches several products: LEGACY_PACKAGE
update public.bookings b set package_id = 503
from pg_temp.quirky as q
where q.quirk = 'multi-package' and b.booking_id = q.ops_id;

-- 4.3: nothing speaks for a payment; ties by updated_at; a bank transfer that beats the web's pending cart
update public.booking_finance_items i set paid = false, paid_at = null
from pg_temp.quirky as q, public.booking_finances as f
where
    q.quirk in ('both-zero', 'validated-infinity', 'drift-done') and f.booking_id = q.ops_id
    and i.booking_finance_id = f.booking_finance_id;
update public.booking_finances f set
    validated_at = case q.quirk when 'validated-infinity' then 'infinity'::timestamp end, is_locked = false
from pg_temp.quirky as q
where q.quirk in ('both-zero', 'validated-infinity', 'drift-done') and f.booking_id = q.ops_id;
-- the engine's word for these (4.7), so that they are no drift
update public.bookings b set
    status = (case when q.is_past then 'ATTENTION' else 'NEW' end)::public."BookingStatus",
    is_paid = q.quirk <> 'both-zero', paid_at = null
from pg_temp.quirky as q
where q.quirk in ('both-zero', 'validated-infinity') and b.booking_id = q.ops_id;
update public.bookings b set
    is_paid = true, paid_at = null,
    updated_at = q.received + case q.quirk when 'tie-updated' then interval '1 hour' else interval '2 hours' end
from pg_temp.quirky as q
where q.quirk in ('tie-updated', 'ops-later') and b.booking_id = q.ops_id;
-- D-03: bstadmin wins by its bank transfer and counts one adult more than the web's items
update public.bookings b set is_paid = true, paid_at = q.received + interval '1 day', number_of_adult = q.adults + 1
from pg_temp.quirky as q
where q.quirk = 'ops-pax' and b.booking_id = q.ops_id;
-- 4.4: the web's null is filled with these
update public.bookings b set number_of_child = 2
from pg_temp.quirky as q
where q.quirk = 'child-from-next' and b.booking_id = q.ops_id;
-- 4.6: the later source has placeholders, or a broken address
update public.bookings b set
    updated_at = q.received + interval '20 minutes', main_contact_name = 'Guest',
    main_contact_email
    = case q.quirk when 'placeholder-later' then 'no-email@getyourguide.com' else 'emma.smith@gmail' end
from pg_temp.quirky as q
where q.quirk in ('placeholder-later', 'invalid-email-later') and b.booking_id = q.ops_id;
-- 4.12: another date; another total in one currency; a total in another currency and one that differs by a cent are
-- no conflict
update public.bookings b set tour_date = b.tour_date - interval '3 days'
from pg_temp.quirky as q
where q.quirk = 'date-conflict' and b.booking_id = q.ops_id;
update public.bookings b set total_price = q.total + 10
from pg_temp.quirky as q
where q.quirk = 'total-conflict' and b.booking_id = q.ops_id;
update public.bookings b set currency = case q.currency when 'EUR' then 'AUD' else 'EUR' end, total_price = q.total + 25
from pg_temp.quirky as q
where q.quirk = 'other-currency' and b.booking_id = q.ops_id;
update public.bookings b set total_price = q.total + 0.01
from pg_temp.quirky as q
where q.quirk = 'one-cent' and b.booking_id = q.ops_id;

-- 4.7: stored words that the engine does not agree with
update public.bookings b set
    status
    = (case q.quirk when 'drift-ready' then 'READY' when 'drift-new' then 'NEW' else 'DONE' end)::public."BookingStatus"
from pg_temp.quirky as q
where q.quirk in ('drift-ready', 'drift-new', 'drift-done') and b.booking_id = q.ops_id;
-- 4.7: a finance without items (bstadmin.sql gives it none) is not "all paid"
update public.booking_finances f set validated_at = null, is_locked = false
from pg_temp.quirky as q
where q.quirk = 'finance-no-items' and f.booking_id = q.ops_id;
update public.bookings b set status = (case when q.is_past then 'ATTENTION' else 'NEW' end)::public."BookingStatus"
from pg_temp.quirky as q
where q.quirk = 'finance-no-items' and b.booking_id = q.ops_id;

-- 4.2: one booking twice inside bstadmin, its ref in another case with a blank (of a ref that is none,
-- nothing to double).
-- 'dup-equal' and 'three-candidates' have the same updated_at: the higher id is ranked first (4.3).
create temp table twice as
select
    q.quirk,
    b as original
from public.bookings as b
inner join pg_temp.quirky as q on b.booking_id = q.ops_id
where q.quirk in ('dup-later', 'dup-equal', 'dup-conflict', 'dup-finance', 'three-candidates', 'finance-twice');
update public.bookings b set booking_ref = q.ref
from pg_temp.quirky as q
where
    b.booking_id = q.ops_id
    and q.quirk in ('dup-later', 'dup-equal', 'dup-conflict', 'dup-finance', 'three-candidates', 'finance-twice');
create temp table doubled as
select
    t.quirk,
    (t.original).booking_id as original_id,
    (
        (select max(b.booking_id) from public.bookings as b) + row_number() over (order by (t.original).booking_id)
    )::integer as booking_id
from pg_temp.twice as t;
insert into public.bookings
select (jsonb_populate_record(b, jsonb_build_object(
    'booking_id', d.booking_id,
    'booking_ref', lower(b.booking_ref collate "C") || ' ',
    'note', 'entered twice',
    -- the second form came a day late
    'tour_date', b.tour_date - case d.quirk when 'dup-conflict' then interval '1 day' else interval '0' end,
    'updated_at',
    b.updated_at + case when d.quirk in ('dup-later', 'dup-conflict') then interval '1 minute' else interval '0' end
))).*
from pg_temp.doubled as d
inner join public.bookings as b on d.original_id = b.booking_id;
-- 4.11 and 5.5: what was done for the booking hangs on the form that is not ranked first, or on both (PAYMENT_LINK)
insert into public.booking_finances (
    booking_finance_id, booking_id, pattern_id, assigned_at, validated_at, is_locked, created_at, updated_at
)
select
    (select max(f.booking_finance_id) from public.booking_finances as f)
    + row_number() over (order by o.booking_finance_id),
    d.booking_id,
    o.pattern_id,
    o.assigned_at,
    o.validated_at,
    o.is_locked,
    o.created_at,
    o.updated_at
from pg_temp.doubled as d
inner join public.booking_finances as o on d.original_id = o.booking_id
where d.quirk in ('dup-finance', 'finance-twice');
insert into public.booking_finance_items (
    finance_item_id, booking_finance_id, name_snapshot, direction, payee_type, unit_type, unit_price,
    amount, paid, paid_at, created_at, updated_at
)
select
    (select max(i.finance_item_id) from public.booking_finance_items as i)
    + row_number() over (order by f.booking_finance_id),
    f.booking_finance_id,
    'Driver fee',
    'EXPENSE',
    'DRIVER',
    'PER_BOOKING',
    450000,
    450000,
    true,
    f.updated_at,
    f.created_at,
    f.updated_at
from pg_temp.doubled as d
inner join public.booking_finances as f on d.booking_id = f.booking_id;

-- 4.12 at the rate of a real shop: the tour was moved in the back office, and the web was not told
update public.bookings b set tour_date = b.tour_date - interval '1 day'
from pg_temp.plan as q
where b.booking_id = q.ops_id and q.quirk is null and q.kind = 'X' and sample.hit(q.n, 160, q.seed, 30);

-- 4.4: one note in both sources, once with a blank more: it counts once
update public.bookings b set note = 'Vegetarian lunch, please '
from pg_temp.quirky as q
where q.quirk = 'same-note' and b.booking_id = q.ops_id;
