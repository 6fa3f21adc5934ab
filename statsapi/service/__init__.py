"""The service: the order of steps. A view follows the journal, recording appends to it, questions catch up first, and
housekeeping folds and compacts what is old. It holds engine and journal together; HTTP and SQL stay out.

Imports point down this list, never up.

service        record, delete, ask, be ready: what the routes call
admission      what may be recorded: times that are taken, limits, duplicates
housekeeping   folding, dropping, compaction, each second
scrape         which series and windows /metrics shows
following      who opens the view, and who catches it up when
reading        one consistent instant of a view, from which a request is answered
over           questions over several series and groups, and how much one may ask
sharing        when an image is written, and when another worker's is taken
view           a store, and how it follows the journal
spans          which span a question means, how far back it may reach, how finely it may be cut
checkpoint     what stands in the journal for records that were compacted: its bytes, and the next one
images         what a view held, in files that the workers of a machine map
image_folder   those files: private, whole, and written by one process alone
"""
