"""Whether all is well: `p2m doctor` looks at everything that a run needs, and says what to do where something is wrong.

    command     the table, the JSON, the exit status
    finding     what one look found
    here        this machine: settings, secrets, TLS files, ports, disk, memory, packages
    reached     what must be reached: store, database, teacher, hub, services, clocks

Nothing is changed: what it writes into the store to see that it can, it removes. No secret is told, nor a part of one.
"""
