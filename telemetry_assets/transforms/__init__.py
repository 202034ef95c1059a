"""The meaning of Silver and Gold, as PySpark DataFrame functions that every engine runs.

No reading, no writing, no engine's own functions. What is portable between Sail and a JVM Spark,
and what is not, is settled here: no plain string casts, no JSON functions, no ``collect``.
"""
