-- What the verdict of batch B reads of its own gates; the global ones it reads from recon_global, so that a table that
-- is missing there does not silence the gates that have to say so.
{{ recon_measure_rows(ref('recon_b_measures')) }}

union all

{{ recon_exception_rows(ref('recon_b_exceptions')) }}
