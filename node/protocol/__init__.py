"""The protocol as a pure, event-sourced machine: standard library and kernel only, no clock, no I/O, no logging.

    decide(state, event) -> facts      what is news in an event, and what follows from it
    evolve(state, fact) -> state       the only way the state changes
    pending(state) -> commands         level-triggered: what is left to be made true, from the state alone

The shell (`fednode.node.daemon`) journals facts before it acts. A fact is all that is remembered: after a restart the
journal is folded through `evolve`, and `pending` says what is left to do. There is no other resume path.
"""
