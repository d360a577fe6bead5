with payments as (
    select * from {{ ref('stg_balisnap__payments') }}
    where {{ touched_booking('balisnap') }}
),

-- Without its raw payload: several models read this table, and none of them the payload.
-- Materialized keeps each rule at one evaluation a row; inlined, it would run again at every mention below.
normalised as materialized (
    select
        payment_id,
        booking_id,
        payment_date,
        raw_payment_date,
        updated_at,
        amount as raw_amount,
        currency_code as raw_currency_code,
        {{ function('norm_money') }}(amount) as amount,
        {{ function('norm_currency') }}(currency_code) as currency_code,
        {{ function('norm_code') }}(payment_method) as method,  -- noqa: RF04
        {{ function('norm_code') }}(gateway) as gateway,
        {{ function('norm_text') }}(gateway_order_id) as gateway_order_id,
        {{ function('norm_text') }}(gateway_capture_id) as gateway_capture_id,
        {{ function('norm_text') }}(payment_ref) as payment_ref,
        coalesce({{ function('norm_text') }}(payment_status), '')
        || '|' || coalesce({{ function('norm_text') }}(payment_status_v2), '') as status_raw,
        {{ function('payment_status') }}(payment_status_v2, payment_status) as payment_status_v2,
        {{ function('status_word') }}(payment_status_v2, payment_status) as status_word,
        {{ function('is_known_payment_status') }}(payment_status_v2, payment_status) as is_known_status,
        {{ function('is_currency') }}(currency_code) as is_currency
    from payments
),

judged as materialized (
    select
        *,
        -- Not bridged, but queued: an id cannot be cut, and a payment without its time has no place.
        array_remove(array[
            case
                when
                    payment_date is null
                    or extract(year from payment_date at time zone 'UTC') not between 1900 and 2199
                    then {{ payment_problem('payment_date', 'missing or outside 1900 to 2199', 'raw_payment_date') }}
            end,
            case
                when length(payment_ref) > 128
                    then {{ payment_problem('payment_ref', 'longer than 128 characters', 'payment_ref') }}
            end,
            case
                when length(gateway_order_id) > 128
                    then {{ payment_problem('gateway_order_id', 'longer than 128 characters', 'gateway_order_id') }}
            end,
            case
                when length(gateway_capture_id) > 128
                    then {{ payment_problem('gateway_capture_id', 'longer than 128 characters', 'gateway_capture_id') }}
            end
        ], null) as refusals,
        -- Bridged with a value made to fit, and reviewed.
        array_remove(array[
            case
                when raw_currency_code is not null and not is_currency
                    then {{ payment_problem('currency_code', 'no currency, taken as USD', 'raw_currency_code') }}
            end,
            case
                when not {{ function('is_money') }}(raw_amount)
                    then {{ payment_problem('amount', 'no amount that fits, taken as 0', 'raw_amount::text') }}
            end,
            case
                when not is_known_status
                    then {{ payment_problem('payment_status', 'unknown, taken as PENDING_PAYMENT', 'status_raw') }}
            end,
            case
                when length(method) > 32
                    then {{ payment_problem('payment_method', 'cut to 32 characters', 'method') }}
            end,
            case
                when length(gateway) > 64
                    then {{ payment_problem('gateway', 'cut to 64 characters', 'gateway') }}
            end,
            case
                when length(status_raw) > 64
                    then {{ payment_problem('status_raw', 'cut to 64 characters', 'status_raw') }}
            end
        ], null) as doubts
    from normalised
)

select
    payment_id,
    {{ function('row_key') }}('payment', 'balisnap', 'Payment', payment_id::text) as payment_key,
    booking_id,
    payment_date,
    amount,
    currency_code,
    left(method, 32) as method,  -- noqa: RF04
    left(gateway, 64) as gateway,
    gateway_order_id,
    gateway_capture_id,
    payment_ref,
    left(status_raw, 64) as status_raw,
    payment_status_v2,
    payment_status_v2 in ('PAID', 'PARTIALLY_REFUNDED') as is_capture,
    payment_status_v2 = 'REFUNDED' as is_refund,
    coalesce(status_word in ('cancelled', 'canceled'), false) as is_cancelled,
    refusals = '{}' as is_bridgeable,
    case when refusals || doubts <> '{}' then to_jsonb(refusals || doubts) end as problems,
    updated_at
from judged
