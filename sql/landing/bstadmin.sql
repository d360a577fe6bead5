-- What is landed from bstadmin: this file is the one statement of the source tables and columns that are needed.
-- bridge/landing.py runs it, reads the columns back from the catalog, checks them against the source and copies them.
--
-- Names and nullability are the source's. Types too, except: enums and varchars are text, numerics carry no scale
-- (NaN and infinity arrive as they are). The first column of each table is the source's primary key.
-- Left out on purpose: users and every user_id, drivers and partners (their ids are enough), audit logs, mails.
--
-- Unlogged: a landing is repeated, never recovered. No primary keys: the models read whole tables and join by hash.
-- `phase2 explain` looks up what belongs to one booking: its rows stand together, so that BRIN, which costs next to
-- nothing to build, finds them. bridge/landing.py summarizes it after each whole copy.

create schema if not exists landing_bstadmin;

create unlogged table if not exists landing_bstadmin.tours (
    tour_id integer not null,
    tour_name text not null,
    slug text not null,
    description text,
    is_active boolean not null,
    created_at timestamp not null,
    updated_at timestamp not null
);

create unlogged table if not exists landing_bstadmin.tour_packages (
    package_id integer not null,
    tour_id integer,
    package_name text not null,
    slug text not null,
    short_description text,
    description text,
    duration_days integer,
    price_per_person numeric,
    price_per_child numeric,
    base_currency text not null,
    min_booking integer,
    max_booking integer,
    is_featured boolean not null,
    thumbnail_url text,
    color_code text,
    priority integer,
    created_at timestamp not null,
    updated_at timestamp not null
);

-- tour_id points at tour_packages.package_id despite its name.
create unlogged table if not exists landing_bstadmin.tour_images (
    image_id integer not null,
    url text not null,
    tour_id integer not null,
    created_at timestamp not null
);

create unlogged table if not exists landing_bstadmin.tour_itineraries (
    itinerary_id integer not null,
    package_id integer not null,
    activity_id integer not null,
    start_time text not null,
    day integer not null
);

create unlogged table if not exists landing_bstadmin.bookings (
    booking_id integer not null,
    booking_ref text,
    package_id integer,
    booking_date timestamp not null,
    tour_date timestamp not null,
    tour_time text,
    total_price numeric not null,
    currency text not null,
    number_of_adult integer not null,
    number_of_child integer,
    status text not null,
    source text not null,
    main_contact_name text not null,
    main_contact_email text not null,
    phone_number text not null,
    pickup_location text not null,
    meeting_point text not null,
    note text,
    assigned_driver_id integer,
    assigned_at timestamp,
    is_paid boolean not null,
    paid_at timestamp,
    created_at timestamp not null,
    updated_at timestamp not null
);

create unlogged table if not exists landing_bstadmin.booking_finances (
    booking_finance_id integer not null,
    booking_id integer not null,
    pattern_id integer,
    validated_at timestamp,
    is_locked boolean not null,
    created_at timestamp not null,
    updated_at timestamp not null
);

create unlogged table if not exists landing_bstadmin.booking_finance_items (
    finance_item_id integer not null,
    booking_finance_id integer not null,
    amount numeric not null,
    paid boolean not null
);

create index if not exists landed_bookings on landing_bstadmin.bookings
using brin (booking_id) with (pages_per_range = 16);

create index if not exists landed_booking_finances on landing_bstadmin.booking_finances
using brin (booking_id) with (pages_per_range = 16);

create index if not exists landed_booking_finance_items on landing_bstadmin.booking_finance_items
using brin (booking_finance_id) with (pages_per_range = 16);
