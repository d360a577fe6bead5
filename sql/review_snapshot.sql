-- The reviews of bookings as batch D left them: before batch E first writes, and after each run of D while E stands.
delete from phase2.review_snapshot;

insert into phase2.review_snapshot (queue_key, review, created_at, updated_at)
select
    q.queue_key,
    to_jsonb(q) - '{created_at,updated_at}'::text[] as review,
    q.created_at,
    q.updated_at
from public.unmapped_queue as q
where q.queue_type = 'BOOKING_REVIEW' and not (q.source_system = 'balisnap' and q.source_table = 'Payment');

-- none at all is a snapshot too
insert into phase2.warehouse_state (part, digest) values ('review snapshot', 'taken')
on conflict (part) do update set built_at = now();
