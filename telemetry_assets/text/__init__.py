"""Text that people read: counts, and names and values of uploads made safe to print."""
