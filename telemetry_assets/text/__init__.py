"""Text for people: untrusted text made safe to print, masked secrets, and formatted numbers."""
