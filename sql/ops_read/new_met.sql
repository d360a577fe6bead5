-- Which bookings the page of a search shows, when many hold what is searched for: those that are met first on the way
-- down the list. Null when they do not fill the page and there are more than `most`
-- to look at.
with met as materialized (
    select w.booking_key
    from (
        select
            c.booking_key,
            c.tour_date,
            c.booking_created_at,
            c.external_booking_ref,
            c.channel_code
        from public.booking_core as c
        where
            true
            -- @if status
            and c.ops_fulfillment_status = %(status)s
            -- @end
            -- @if source
            and c.channel_code = %(source)s
            -- @end
            -- @if date_from
            and c.tour_date >= %(date_from)s
            -- @end
            -- @if date_to
            and c.tour_date <= %(date_to)s
            -- @end
            -- @if after_date
            and (c.tour_date, c.booking_created_at) < (%(after_date)s::date, %(after_created)s::timestamptz)
            -- @end
        order by c.tour_date desc, c.booking_created_at desc
        fetch first %(most)s rows with ties
    ) as w
    where
        (
            w.external_booking_ref ilike %(pattern)s
            or (
                select t.main_name from public.booking_contact as t
                where t.booking_key = w.booking_key
            ) ilike %(pattern)s
        )
        -- one look per booking that holds it; `exists` would gather the places of all first
        and (
            select true from ops_read.ops_places as p
            where p.booking_key = w.booking_key
        )
    order by w.tour_date desc, w.booking_created_at desc
    fetch first %(size)s rows with ties
)

select
    case
        when
            (select count(*) from met) >= %(size)s
            or not exists (
                select 1 from public.booking_core as c
                where
                    true
                    -- @if status
                    and c.ops_fulfillment_status = %(status)s
                    -- @end
                    -- @if source
                    and c.channel_code = %(source)s
                    -- @end
                    -- @if date_from
                    and c.tour_date >= %(date_from)s
                    -- @end
                    -- @if date_to
                    and c.tour_date <= %(date_to)s
                    -- @end
                    -- @if after_date
                    and (c.tour_date, c.booking_created_at) < (%(after_date)s::date, %(after_created)s::timestamptz)
                    -- @end
                order by c.tour_date desc, c.booking_created_at desc
                offset %(most)s
            )
            then (
                select coalesce(jsonb_agg(k.booking_key), '[]')
                from (
                    select m.booking_key
                    from met as m
                    -- @if after_date
                    -- the cursor stands among these, the page leaves out those before it
                    union all
                    select c.booking_key
                    from public.booking_core as c
                    where
                        (c.tour_date, c.booking_created_at) = (%(after_date)s::date, %(after_created)s::timestamptz)
                        and (
                            c.external_booking_ref ilike %(pattern)s
                            or (
                                select t.main_name from public.booking_contact as t
                                where t.booking_key = c.booking_key
                            ) ilike %(pattern)s
                        )
                -- @end
                ) as k
            )
    end as page_row
