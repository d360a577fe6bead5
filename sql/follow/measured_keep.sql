-- Of these row versions the kept rows are.
delete from phase2.measured_ranges as h
using pg_temp.measured_differing as d
where h.part = d.part and h.range_no = d.range_no;

insert into phase2.measured_ranges (part, range_no, row_count, version)
select
    n.part,
    n.range_no,
    n.row_count,
    n.version
from pg_temp.measured_now as n
inner join pg_temp.measured_differing as d on n.part = d.part and n.range_no = d.range_no
