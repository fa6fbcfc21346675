"""The commands of `p2m`, a module for each group of them; only click is imported when they are read.

shared       what several commands have: --connect, --json, the prompt, the way a command is run
run          run, attributes          job: what their options say, as a run's options
runs         watch, list, show, cancel, data, choose
improve      improve
models       demo, export, serve
catalogue    catalogue build, catalogue search
house        up
"""
