"""A search that knows this machine's clock: nets for the accuracy that they reach and the time that they take here.

space       which nets there are, and how one is drawn and changed          numnet.models.searched: a net in one line
blocks      the words that say what a block's time depends on
latency     the table of times of all blocks, and a net's time from it      `numnet latency`
reward      accuracy times a power of the time
evolution   which net is tried next; random search is the rival
log         what is written down, line by line
run         plan, short trainings, resuming                                 `numnet search`
front       the nets that no other beats
"""
