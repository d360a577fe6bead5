-- A table: the gates' tests and the verdict of a run read the same numbers, of one snapshot, measured once.
{{ config(materialized='table', unlogged=true) }}

{{ recon_reading(ref('recon_g')) }}
