"""The asset graph: wiring, metadata and checks. No rule about the data is decided here."""
