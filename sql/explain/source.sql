-- One landed row by its address (id in phase2.explain, table in phase2.explain_table).
with asked as materialized (
    select
        current_setting('phase2.explain')::integer as id,
        current_setting('phase2.explain_table') as source_table
),

found as (
    select to_jsonb(t) as said
    from landing_balisnap."Booking" as t
    inner join asked on t.booking_id = asked.id and asked.source_table = 'balisnap:Booking'
    union all
    select to_jsonb(t) as said
    from landing_bstadmin.bookings as t
    inner join asked on t.booking_id = asked.id and asked.source_table = 'bstadmin:bookings'
    union all
    select to_jsonb(t) as said
    from landing_balisnap."BookingItem" as t
    inner join asked on t.booking_item_id = asked.id and asked.source_table = 'balisnap:BookingItem'
    union all
    select to_jsonb(t) as said
    from landing_balisnap."Payment" as t
    inner join asked on t.payment_id = asked.id and asked.source_table = 'balisnap:Payment'
    union all
    select to_jsonb(t) as said
    from landing_bstadmin.booking_finances as t
    inner join asked on t.booking_finance_id = asked.id and asked.source_table = 'bstadmin:booking_finances'
    union all
    select to_jsonb(t) as said
    from landing_balisnap."TourProduct" as t
    inner join asked on t.product_id = asked.id and asked.source_table = 'balisnap:TourProduct'
    union all
    select to_jsonb(t) as said
    from landing_balisnap."TourVariant" as t
    inner join asked on t.variant_id = asked.id and asked.source_table = 'balisnap:TourVariant'
    union all
    select to_jsonb(t) as said
    from landing_balisnap."VariantRatePlan" as t
    inner join asked on t.rate_plan_id = asked.id and asked.source_table = 'balisnap:VariantRatePlan'
    union all
    select to_jsonb(t) as said
    from landing_balisnap."TourPackage" as t
    inner join asked on t.package_id = asked.id and asked.source_table = 'balisnap:TourPackage'
    union all
    select to_jsonb(t) as said
    from landing_bstadmin.tour_packages as t
    inner join asked on t.package_id = asked.id and asked.source_table = 'bstadmin:tour_packages'
    union all
    select to_jsonb(t) as said
    from landing_bstadmin.tours as t
    inner join asked on t.tour_id = asked.id and asked.source_table = 'bstadmin:tours'
)

select said from found
