"""No test may reach a real account or leave this machine by a proxy, whatever the developer's shell has set."""

from __future__ import annotations

import os
import signal

for name in [name for name in os.environ if name.startswith("OPENAI_")]:
    del os.environ[name]
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost,::1"

# A shell that runs the suite in the background has switched Ctrl-C off, and every child process would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
