"""What all tests rely on: Ctrl-C reaches the processes they start, also where a script began pytest behind `&`."""

import signal
import threading

if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore it
