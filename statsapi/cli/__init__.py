"""What people type: `statsapi COMMAND`. Each command is a module that parses its arguments, calls one piece of the
package or the client, and prints; rules of their own stay out.

What commands share
main               the table of commands; loads none of them before it is asked for
connection         which service a command asks: URL, key, configuration file
question_options   options for series and spans
output             tables, aligned lines, JSON
failures           the line in which a command that fails ends, and its exit status

Beside the service
serve              `statsapi serve`: Gunicorn with the packaged configuration
config             `config`: the settings in force
journal            `journal backup`, `info`, `check`, `compact`, `salvage`
keys               `keys new`, `check`, `revoke`
healthcheck        for containers without curl

Through the client
recording          `post`
timing             `time`: how long a command takes
asking             `stats`, `top`, `check`
listing            `series`, `tags`
tailing            `tail`
exporting          `export`
doctor             `doctor`: what is wrong between here and the service
bench              `bench`: how fast an installation is
statsd             `statsd`: takes StatsD's datagrams
statsd_lines       a datagram as events
importing          `import`: files of events, with the six below
import_mapping     how the columns of a file are read
import_lines       line protocol
import_packing     how a file is unpacked
import_pieces      where a file is cut
import_ends        where it was cut before
import_refused     the rows that are refused
"""
