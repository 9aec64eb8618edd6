"""The notebooks as a course: without solutions, with solutions, graded, as slides (``numnet course``).

``exercises`` finds the exercises of a notebook, ``versions`` writes the notebooks for students and for teachers,
``grading`` runs handed-in notebooks and counts points, ``slides`` makes pages to show from figures. The cells carry
nbgrader's metadata (schema 3), so that nbgrader can be used as well; nothing here needs it.
"""
