-- Which bookings the page of a search shows, when no more than `most` references or names hold what is searched for:
-- by their trigrams, without the joins that only the page needs. Of more, null.
with hits as materialized (
    select c.booking_key
    from public.booking_core as c
    where
        c.external_booking_ref ilike %(pattern)s
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
    union all
    select t.booking_key
    from public.booking_contact as t
    where t.main_name ilike %(pattern)s
    limit %(most)s + 1
)

select
    case
        when (select count(*) from hits) <= %(most)s
            then (
                select coalesce(jsonb_agg(p.booking_key), '[]')
                from (
                    (
                        select c.booking_key
                        from ops_read.ops_places as c
                        where
                            c.booking_key in (select h.booking_key from hits as h)
                            -- @if status
                            and c.status = %(status)s
                            -- @end
                            -- @if source
                            and c.channel = %(source)s
                            -- @end
                            -- @if date_from
                            and c.tour_date >= %(date_from)s
                            -- @end
                            -- @if date_to
                            and c.tour_date <= %(date_to)s
                            -- @end
                            -- @if after_date
                            and (c.tour_date, c.created_at) < (%(after_date)s::date, %(after_created)s::timestamptz)
                            -- @end
                        order by c.tour_date desc, c.created_at desc
                        fetch first %(size)s rows with ties
                    )
                    -- @if after_date
                    -- the cursor stands among these, the page leaves out those before it
                    union all
                    select c.booking_key
                    from ops_read.ops_places as c
                    where
                        c.booking_key in (select h.booking_key from hits as h)
                        and (c.tour_date, c.created_at) = (%(after_date)s::date, %(after_created)s::timestamptz)
                -- @end
                ) as p
            )
    end as page_row
