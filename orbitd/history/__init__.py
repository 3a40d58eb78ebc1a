"""What sessions have shown, kept beside the sessions' database: films and their text.

    history      what a daemon records, and the way to read it     methods      the methods of `history.*`
    recorder     chunks, groups, text, limits: writing a film      film         reading one
    database     history.db: opening it, its rows, its damage      text_blocks  lines of text as they are stored
    packed_records  records of a journal as a chunk holds them
    scenes       pictures of the past                              lines        pages of lines
    export       films and lines as files, and in pages            asciicast    a film as an asciicast
    timeline     when what is recorded                             matching     which lines fit a query
    search       starts a child that searches, and ends it         search_child, search_messages
    styled       lines with their colours                          forget       erases what a session has shown
    salvage      brings over what is whole in a damaged database

`schema.sql` has the tables.
"""
