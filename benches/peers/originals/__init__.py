"""The rules of chainercv and simple-faster-rcnn in plain NumPy, to be timed and compared with.

Neither project can be installed beside current versions of NumPy and PyTorch. What stands here
follows their published behaviour step by step, one array operation for each of theirs and in the
same order, so that the same NumPy seed draws the same sample and the time is that of their
utilities.
"""
