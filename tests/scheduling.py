"""Which process of the tests takes which file: those that mostly wait have one of their own."""

from pathlib import PurePath

from xdist.scheduler import LoadFileScheduling

WAITING = (
    *("training/test_workers.py", "recipes/test_workers.py", "recipes/test_resume.py"),
    *("recipes/test_shrink.py", "fuzz/test_fuzz.py"),
)
"""Files whose tests wait for other processes, in the order in which they begin."""


class WaitingFilesApart(LoadFileScheduling):
    """A file a process; of three or more processes the last one takes the files that wait.

    A test that waits leaves its core to nobody where there are as many processes as cores, and one
    more of them for all files takes the caches from the others.
    """

    def _assign_work_unit(self, node):
        files = self._files_of(node) or list(self.workqueue)
        self.workqueue.move_to_end(files[0], last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node):
        if self.workqueue and not self._files_of(node) and not node.shutting_down:
            node.shutdown()  # what is left is not for this process
        else:
            super()._reschedule(node)

    def _files_of(self, node):
        waits = {file: _waits(file) for file in self.workqueue}
        if len(self.nodes) < 3 or not (self.assigned_work[node] or any(waits.values())):
            return list(waits)
        apart = node is self.nodes[-1]
        return [file for file, waiting in waits.items() if waiting == apart]


def _waits(file):
    return "/".join(PurePath(file).parts[-2:]) in WAITING
