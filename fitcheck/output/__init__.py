"""Reports as text, JSON and other formats: reads finished reports, computes nothing."""
