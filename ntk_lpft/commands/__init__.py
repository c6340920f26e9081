"""The commands: options, what they say to people, and how the library does what they ask for."""
