"""How each command's report is laid out for reading. A view computes nothing: it arranges what the report holds."""
