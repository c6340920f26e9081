"""What tests of several folders share."""

from helpers import checked as checked  # the hook that checks types looks it up here
