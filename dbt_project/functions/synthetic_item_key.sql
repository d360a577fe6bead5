select
    {{ rulebook('named_key') }}(
        'booking', 'canonical:booking_identity:' || channel_code || ':' || external_booking_ref || ':synthetic'
    )
