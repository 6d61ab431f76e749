"""Importing this imports the packages of the backend that KERAS_BACKEND names, for processes that are forked
from one that has them."""

import os

from hiddencost import backends

backends.import_packages(os.environ["KERAS_BACKEND"])
