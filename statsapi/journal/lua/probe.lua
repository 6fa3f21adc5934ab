-- Gives the state of the journal.
-- needs clock, state, note, recount, told
return told
