-- The other three databases beside ops_db, for compose.yaml.
create database channel_db;
create database balisnap;
create database bstadmin;
