"""This machine and buckets: files, tables, cores, devices."""
