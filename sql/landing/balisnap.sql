-- What is landed from balisnap: this file is the one statement of the source tables and columns that are needed.
-- bridge/landing.py runs it, reads the columns back from the catalog, checks them against the source and copies them.
--
-- Names and nullability are the source's. Types too, except: enums and varchars are text, numerics carry no scale
-- (NaN and infinity arrive as they are). The first column of each table is the source's primary key.
-- Left out on purpose: "User" and every user_id.
--
-- Unlogged: a landing is repeated, never recovered. No primary keys: the models read whole tables and join by hash.
-- `phase2 explain` looks up what belongs to one booking: its rows stand together, so that BRIN, which costs next to
-- nothing to build, finds them. bridge/landing.py summarizes it after each whole copy.

create schema if not exists landing_balisnap;

create unlogged table if not exists landing_balisnap."TourPackage" (
    package_id integer not null,
    package_name text not null,
    short_description text,
    description text,
    duration_days integer,
    price_per_person numeric not null,
    price_per_child numeric,
    min_booking integer,
    max_booking integer,
    is_featured boolean not null,
    thumbnail_url text,
    created_at timestamp not null,
    updated_at timestamp not null,
    slug text not null,
    color_code text,
    priority smallint
);

create unlogged table if not exists landing_balisnap."TourImage" (
    image_id integer not null,
    url text not null,
    tour_id integer not null,
    created_at timestamp not null
);

create unlogged table if not exists landing_balisnap."TourProduct" (
    product_id integer not null,
    legacy_package_id integer,
    product_name text not null,
    slug text not null,
    short_description text,
    description text,
    category text,
    country_code text,
    region text,
    base_meeting_point text,
    is_featured boolean not null,
    is_active boolean not null,
    thumbnail_url text,
    color_code text,
    priority smallint,
    created_at timestamp not null,
    updated_at timestamp not null
);

create unlogged table if not exists landing_balisnap."TourVariant" (
    variant_id integer not null,
    product_id integer not null,
    legacy_package_id integer,
    variant_code text not null,
    variant_name text not null,
    service_type text not null,
    duration_days integer not null,
    duration_nights integer,
    min_pax integer not null,
    max_pax integer,
    currency_code text not null,
    is_default boolean not null,
    is_active boolean not null,
    booking_cutoff_hours integer not null,
    cancellation_policy text,
    created_at timestamp not null,
    updated_at timestamp not null
);

create unlogged table if not exists landing_balisnap."VariantRatePlan" (
    rate_plan_id integer not null,
    variant_id integer not null,
    traveler_type text not null,
    price numeric not null,
    currency_code text not null,
    min_quantity integer,
    max_quantity integer,
    valid_from timestamp,
    valid_to timestamp,
    season_start date,
    season_end date,
    is_active boolean not null,
    created_at timestamp not null,
    updated_at timestamp not null
);

create unlogged table if not exists landing_balisnap."VariantItinerary" (
    itinerary_id integer not null,
    variant_id integer not null,
    activity_id integer,
    day integer not null,
    sort_order integer not null,
    title text not null,
    description text,
    location text,
    start_time time,
    end_time time,
    duration_minutes integer,
    created_at timestamp not null,
    updated_at timestamp not null
);

create unlogged table if not exists landing_balisnap."Departure" (
    departure_id integer not null,
    variant_id integer not null,
    start_date timestamp not null
);

create unlogged table if not exists landing_balisnap."Booking" (
    booking_id integer not null,
    package_id integer,
    booking_date timestamp not null,
    total_price numeric not null,
    number_of_adult integer not null,
    number_of_child integer,
    status text not null,
    status_v2 text,
    currency_code text not null,
    created_at timestamp not null,
    updated_at timestamp not null,
    booking_ref text,
    main_contact_name text not null,
    main_contact_email text not null,
    phone_number text not null,
    meeting_point text not null,
    note text
);

create unlogged table if not exists landing_balisnap."BookingItem" (
    booking_item_id integer not null,
    booking_id integer not null,
    variant_id integer not null,
    departure_id integer,
    item_status text not null,
    currency_code text not null,
    adult_qty integer not null,
    child_qty integer not null,
    infant_qty integer not null,
    adult_unit_price numeric not null,
    child_unit_price numeric not null,
    infant_unit_price numeric not null,
    subtotal numeric not null,
    discount_amount numeric not null,
    tax_amount numeric not null,
    total_amount numeric not null,
    snapshot jsonb,
    created_at timestamp not null,
    updated_at timestamp not null
);

create unlogged table if not exists landing_balisnap."BookingTraveler" (
    traveler_id integer not null,
    booking_item_id integer not null,
    traveler_type text not null,
    title text,
    first_name text not null,
    last_name text,
    email text,
    phone text,
    birth_date date,
    nationality text,
    passport_number text,
    special_request text,
    created_at timestamp not null,
    updated_at timestamp not null
);

create unlogged table if not exists landing_balisnap."Payment" (
    payment_id integer not null,
    booking_id integer not null,
    payment_date timestamp not null,
    amount numeric not null,
    payment_method text not null,
    payment_status text not null,
    payment_status_v2 text,
    currency_code text not null,
    gateway text,
    gateway_order_id text,
    gateway_capture_id text,
    raw_payload jsonb,
    created_at timestamp not null,
    updated_at timestamp not null,
    payment_ref text
);

create index if not exists landed_booking on landing_balisnap."Booking"
using brin (booking_id) with (pages_per_range = 16);

create index if not exists landed_bookingitem on landing_balisnap."BookingItem"
using brin (booking_id) with (pages_per_range = 16);

create index if not exists landed_bookingtraveler on landing_balisnap."BookingTraveler"
using brin (booking_item_id) with (pages_per_range = 16);

create index if not exists landed_payment on landing_balisnap."Payment"
using brin (booking_id) with (pages_per_range = 16);
