"""Parsing: from the bytes of an upload to Arrow rows of the Bronze tables. Pure functions, without I/O.

``framing.py`` decompresses an upload and finds its documents, with ``json_scan.py``; ``documents.py`` accepts or
rejects one document; ``arrow_rows.py`` converts the results to rows. ``landing/`` reads the bytes.
"""
