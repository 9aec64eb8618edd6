"""Training: the loop, what it stands on, and what stands on it. No arithmetic on activations.

Each imports only from those that stand on its line or below it:

sweep         several trainings from one file            results   the table of what came out
budget        how many epochs fit in so much time        `numnet train --budget`
run           a training from a data set's name and a recipe
loop          `fit`: epochs and steps                    begin here
scoring       validation, the best epoch, the test at the end
rehearsal     the kernels of a step compiled before it
setup         what settings mean for a net and its data  whitening: a first layer made from the images
state         a run on disk, and how it goes on          trouble: where a number stopped being finite
loss          of a batch                                 progressive: smaller images first
evaluate      accuracy and more, over a split            team: who shares the work
recipes       what may be set, and named settings        optimisers, schedules
console       the bar and the signals                    lock: one process a folder; pace: how many threads
"""
