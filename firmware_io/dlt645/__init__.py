"""DL/T 645-2007, and the framing of 1997: the protocol of Chinese electricity meters on RS-485."""
