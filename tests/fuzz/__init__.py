"""A structure-aware fuzzer of everything that reads a file: `python -m tests.fuzz --count 200000`.

seeds       small valid files of each kind
mutations   parse one, change fields, encode it again; or change bytes
targets     what a user does with such a file: open, print, plan, reshard, verify
running     one input in this process, under limits; many in worker processes; minimising
"""
