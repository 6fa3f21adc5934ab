-- Gives the state of the journal.
-- needs clock, state, recount, told
return told
