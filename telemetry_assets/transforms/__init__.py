"""The transforms of the Silver and Gold tables, as PySpark DataFrame functions that all engines run.

Transforms read only their inputs, write nothing, and use no functions that only one engine has. Results must be equal
on Sail and on JVM Spark, so transforms do not cast doubles to strings and do not use Spark's JSON functions.
"""
