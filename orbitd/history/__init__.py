"""What sessions have shown, kept beside the sessions' database: films and their text.

    history      what a daemon records, and the way to read it     methods      the methods of `history.*`
    recorder     chunks, groups, text, limits: writing a film      film         reading one
    database     history.db: opening it, its rows, its damage      text_blocks  lines of text as they are stored
    scenes       pictures of the past

`schema.sql` has the tables.
text_blocks     lines of text with their numbers and times, as they are stored
lines           history.lines: lines in pages
schema.sql      the tables of history.db
"""
