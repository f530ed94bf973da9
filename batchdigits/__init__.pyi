"""Tell checkers of types what `__getattr__` gives."""

from batchdigits.api import Reader as Reader
from batchdigits.api import Reading as Reading
from batchdigits.api import read as read
from batchdigits.api import read_folder as read_folder

__version__: str
