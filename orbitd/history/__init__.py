"""What sessions have shown, kept beside the sessions' database: films and their text.

text_blocks     lines of text with their numbers and times, as they are stored
schema.sql      the tables of history.db
"""
