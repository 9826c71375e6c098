"""Starts of the trainer in processes of their own, as forks of one that has imported TensorFlow.

What a start imports, and what the environment makes of Python, is for a fresh `subprocess.run(command(...))`;
`main_test` holds that both kinds of start have the same conditions, the same bits and the same lines.
"""

from fork_server import ForkServer

SERVER = ForkServer()
popen, run = SERVER.popen, SERVER.run
