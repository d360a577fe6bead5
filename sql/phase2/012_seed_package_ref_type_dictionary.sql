-- Batch B: the dictionary of what booking_core.package_ref_key points at, made and filled.
-- No foreign key points at it; 003's check enforces the list.
-- Idempotent: adds what is missing, restores a label that was changed, writes nothing otherwise.

begin;
set local lock_timeout = '5s';
set local search_path = '';

create table if not exists public.ref_package_ref_type (
    type_code varchar(32) not null,
    type_label varchar(128) not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint ref_package_ref_type_pkey primary key (type_code)
);

insert into public.ref_package_ref_type as t (type_code, type_label)
select
    v.code,
    v.label
from (
    values
    ('LEGACY_PACKAGE', 'Legacy package'),
    ('CATALOG_PRODUCT', 'Catalog product'),
    ('CATALOG_VARIANT', 'Catalog variant')
) as v (code, label)
left join public.ref_package_ref_type as x on v.code = x.type_code
where x.type_label is distinct from v.label
on conflict (type_code) do update
    set type_label = excluded.type_label, updated_at = now();

commit;
