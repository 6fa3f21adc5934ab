"""What people type: `statsapi COMMAND`. Each command is a module that parses its arguments, calls one piece of the
package or the client, and prints; rules of their own stay out. main.py has the table of commands and loads none of them
before it is asked for; connection.py says which service, failures.py how a command ends, output.py how it prints.
"""
