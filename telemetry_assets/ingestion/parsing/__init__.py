"""The bytes of an upload become rows. Pure: no file, no table, no setting is read here."""
